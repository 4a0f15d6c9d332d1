"""The folder that datasets are fetched into: what lies there, and how new files get there.

    <root>/burgers1d_train.h5 ...     the files
    <root>/.gust/<dataset>.json       receipt of what was put there
    <root>/.gust/<dataset>.part/      an unfinished fetch: files/, old/, its receipt once files/ is complete

Files are unpacked in .part/files and renamed when all are there. A run that is killed between two renames is
continued by the next, which knows the moved files by the receipt in .part.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gust_torch.artifacts.fetching.extract import extract
from gust_torch.artifacts.fetching.lock import waiting_lock
from gust_torch.artifacts.fetching.receipt import FOLDER, Receipt, read_receipt, read_receipts
from gust_torch.artifacts.fetching.watch import Watch
from gust_torch.artifacts.registry.entry import DatasetEntry


class DatasetRoot:
    """A folder with fetched datasets; several processes may use it."""

    def __init__(self, root: Path) -> None:
        """Names the folder; nothing is touched."""
        self._root, self._state = root, root / FOLDER

    def is_current(self, entry: DatasetEntry) -> bool:
        """Whether this very dataset lies here, untouched since it was fetched."""
        receipt = read_receipt(self._receipt(entry))
        if receipt is None or receipt.sha256 != entry.sha256:
            return False
        members = entry.splits.values()
        return set(receipt.files) == set(members) and all(
            receipt.holds(member, self._root / member) for member in members
        )

    def is_staged(self, entry: DatasetEntry) -> bool:
        """Whether a stopped fetch has unpacked everything, so that only renames are left."""
        receipt = self._staged_receipt(entry)
        return receipt is not None and all(
            os.path.lexists(self._staged(entry) / member) or receipt.holds(member, self._root / member)
            for member in entry.splits.values()
        )

    def refuse_strangers(self, entry: DatasetEntry) -> None:
        """Look for files that this dataset would replace and did not put there itself.

        Raises:
            ValueError: There is one.
        """
        installed, staged = read_receipt(self._receipt(entry)), self._staged_receipt(entry)
        mine = [receipt for receipt in (installed, staged) if receipt and receipt.sha256 == entry.sha256]
        for member in entry.splits.values():
            path = self._root / member
            if os.path.lexists(path) and not any(receipt.holds(member, path) for receipt in mine):
                reason = self._reason(entry, member, installed)
                raise ValueError(
                    f"{path} {reason}; give --overwrite to replace it by the one of {entry.name}, or another "
                    "--root"
                )

    def install(self, entry: DatasetEntry, tarball: Path, *, overwrite: bool, watch: Watch) -> None:
        """Put the dataset's files in place, all of them or none.

        Raises:
            ValueError: The tarball is not right, or a file is in the way without `overwrite`.
            OSError: The disk fails or is full.
        """
        if self._state.is_symlink():
            raise ValueError(f"{self._state} is a link; remove it, fetches keep their receipts there")
        self._state.mkdir(parents=True, exist_ok=True)
        with waiting_lock(self._state / entry.name, watch):
            if self.is_current(entry):
                return
            if not overwrite:
                self.refuse_strangers(entry)
            if not self.is_staged(entry):
                self._stage(entry, tarball, watch)
            # No dataset is called "_root": this lock is held for the renames only, by one dataset at a time.
            with waiting_lock(self._state / "_root", watch):
                if not overwrite:
                    self.refuse_strangers(entry)
                self._publish(entry)

    def _reason(self, entry: DatasetEntry, member: str, installed: Receipt | None) -> str:
        """Why a file in the root is none of ours."""
        path = self._root / member
        for other in read_receipts(self._root, without=[entry.name]):
            if other.holds(member, path):
                return f"belongs to {other.name}"
        if installed is None or member not in installed.files:
            return "exists already and was not fetched"
        if installed.holds(member, path):
            return f"is of another version of {entry.name}"
        return "has changed since it was fetched"

    def _stage(self, entry: DatasetEntry, tarball: Path, watch: Watch) -> None:
        """Unpacks into the staging folder; after an error nothing is left of it."""
        folder = self._part(entry)
        _remove(folder)
        self._staged(entry).mkdir(parents=True)
        try:
            members = tuple(entry.splits.values())
            extract(tarball, self._staged(entry), members=members, unpacked=entry.unpacked, watch=watch)
            for member in members:
                _flush(self._staged(entry) / member)
            Receipt.of(entry, self._staged(entry)).write(folder / f"{entry.name}.json")
        except BaseException:
            _remove(folder)
            raise

    def _publish(self, entry: DatasetEntry) -> None:
        """Rename the staged files to their places; a second call finishes this after a kill."""
        for member in entry.splits.values():
            staged, target = self._staged(entry) / member, self._root / member
            if not os.path.lexists(staged):
                continue
            if os.path.lexists(target) and (staged.is_dir() or (target.is_dir() and not target.is_symlink())):
                # A rename replaces a file or a link by a file, but no folder that is not empty.
                old = self._part(entry) / "old" / member
                _remove(old)
                old.parent.mkdir(exist_ok=True)
                os.rename(target, old)
            os.replace(staged, target)
        for other in self._overlapping(entry):
            other.unlink()
        os.replace(self._part(entry) / f"{entry.name}.json", self._receipt(entry))
        _remove(self._part(entry))

    def _overlapping(self, entry: DatasetEntry) -> Iterator[Path]:
        """Receipts of other datasets whose files are replaced by this one's."""
        members = set(entry.splits.values())
        for other in read_receipts(self._root, without=[entry.name]):
            if members & set(other.files):
                yield self._state / f"{other.name}.json"

    def _receipt(self, entry: DatasetEntry) -> Path:
        return self._state / f"{entry.name}.json"

    def _part(self, entry: DatasetEntry) -> Path:
        return self._state / f"{entry.name}.part"

    def _staged(self, entry: DatasetEntry) -> Path:
        return self._part(entry) / "files"

    def _staged_receipt(self, entry: DatasetEntry) -> Receipt | None:
        """Return the receipt of a complete staging folder for this very dataset."""
        receipt = read_receipt(self._part(entry) / f"{entry.name}.json")
        return receipt if receipt is not None and receipt.sha256 == entry.sha256 else None


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all below it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Put a file, or a folder of perhaps a million small ones, on the disk."""
    if path.is_dir():
        os.sync()
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
