"""Puts packaged datasets of the registry into a folder: download, check, unpack, rename.

    <root>/burgers1d_train.h5 ...     the files
    <root>/.gust/<dataset>.json       receipt of what was put there: the next fetch knows its own files by it
    <root>/.gust/<dataset>.part/      an unfinished fetch: files/, old/, its receipt once files/ is complete

Files are unpacked in .part/files and renamed when all are there. A run that is killed between two renames is
continued by the next, which knows the moved files by the receipt in .part.
"""

import filecmp
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.artifacts.download import ArtifactCache, ByteProgress, Job, Stopped
from gust_torch.artifacts.reference import expand_reference
from gust_torch.artifacts.registry import DatasetEntry, find_entries
from gust_torch.artifacts.store import DEFAULT_CACHE, RemoteFile, open_reference
from gust_torch.artifacts.unpack import unpack
from solvers.common.cli import one_line, parse, run_command
from solvers.common.files import sync, written_aside
from solvers.common.provenance import provenance

UP_TO_DATE = "up to date"
FETCHED = "fetched"
FROM_CACHE = "from cache"

FORMAT_VERSION = 1
FOLDER = ".gust"
_PARALLEL_DATASETS = 4
_GRACE_SECONDS = 4.0  # for threads to clean up after a signal

Outcome = str | ValueError | OSError  # FETCHED, FROM_CACHE, or why not

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchOptions:
    """Which datasets, where they come from, and where to."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")]
    """Datasets of the registry."""
    root: Path = Path("data/pdebench")
    """Where their files go."""
    cache: Path = DEFAULT_CACHE
    """Where downloaded tarballs are kept."""
    registry: Path | None = None
    """Says where they lie; default $GUST_REGISTRY, else those in ROOT and docs (dataset_registry.yaml)."""
    entity: str | None = None
    """W&B entity of artifacts that name none; default $WANDB_ENTITY."""
    project: str | None = None
    """W&B project of artifacts that name none; default $WANDB_PROJECT."""
    offline: bool = False
    """Use the cache only, never the network."""
    workers: int = 8  # reads at a time; a network is idle most of the time with fewer
    """Pieces to download at the same time, over all datasets."""
    overwrite: bool = False
    """Replace files in ROOT that were changed or not fetched."""

    def opener(self, entry: DatasetEntry) -> Callable[[], RemoteFile] | None:
        """Make what finds a dataset's stored file; None offline.

        Raises:
            ValueError: Its W&B entity or project is not known.
        """
        if self.offline:
            return None
        reference = expand_reference(entry.artifact, entity=self.entity, project=self.project)
        return functools.partial(open_reference, reference, cache_dir=self.cache)


def main(arguments: Sequence[str] | None = None) -> int:
    """Put packaged datasets of the registry into a folder; a second run does nothing."""
    return run_command(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    """Fetch, and print a line for each dataset."""
    prog = "python scripts/fetch_datasets.py"
    options = parse(FetchOptions, arguments, prog=prog, description=main.__doc__ or "")
    if not options.names:
        print(f"usage: {prog} NAME ... (--help lists the options)", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    fetch(options)
    return 0


def fetch(options: FetchOptions, *, report: Callable[[str], object] = print) -> None:
    """Put datasets into a folder, side by side; those that are there already cost nothing.

    Args:
        options: Which, from where, and where to.
        report: Given a line for each dataset that is in place, in the order of the names, also where others
            failed: "burgers1d_subset_v1: burgers1d_train.h5, 99.2 MB, data/pdebench, fetched".

    Raises:
        ValueError: A name is unknown, a file is in the way, a disk is too small, or a dataset cannot be had.
        OSError: A disk fails or is full.
    """
    if options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; give 1 or more")
    entries = find_entries(options.names, registry=options.registry, root=options.root)
    _refuse_shared(entries)
    root, cache = DatasetRoot(options.root), ArtifactCache(options.cache)
    wanted = [entry for entry in entries if not root.is_current(entry)]
    openers = {entry.name: options.opener(entry) for entry in wanted}
    if not options.overwrite:
        for entry in wanted:
            root.refuse_strangers(entry)
    missing = sum({entry.sha256: cache.missing_bytes(entry) for entry in wanted}.values())
    unpacked = sum(entry.unpacked for entry in wanted if not root.is_staged(entry))
    check_space([(options.cache, 0 if options.offline else missing), (options.root, unpacked)])

    def put(entry: DatasetEntry, workers: int, job: Job) -> str:
        tarball, cached = cache.retrieve(entry, openers[entry.name], workers=workers, job=job)
        root.install(entry, tarball, overwrite=options.overwrite, job=job)
        return FROM_CACHE if cached else FETCHED

    outcomes = _side_by_side(put, wanted, options.workers, missing + unpacked) if wanted else {}
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    for entry in entries:
        outcome = outcomes.get(entry.name, UP_TO_DATE)
        if not isinstance(outcome, Exception):
            files = " ".join(entry.splits.values())
            report(f"{entry.name}: {files}, {format_bytes(entry.unpacked)}, {options.root}, {outcome}")
    if len(failed) == 1:
        raise failed[0]
    if failed:
        lines = "; ".join(one_line(error) for error in failed)
        raise ValueError(f"{len(failed)} of {len(entries)} datasets could not be fetched: {lines}")


def _side_by_side(
    put: Callable[[DatasetEntry, int, Job], str], entries: Sequence[DatasetEntry], workers: int, size: int
) -> dict[str, Outcome]:
    """Work on some datasets at a time; one that fails does not stop the others."""
    parallel = min(len(entries), workers, _PARALLEL_DATASETS)
    outcomes: dict[str, Outcome] = {}
    left = list(reversed(entries))
    with ByteProgress(size, "fetch") as progress:
        job = Job(progress.count)

        def work() -> None:
            while left and not job.stop.is_set():
                entry = left.pop()
                try:
                    outcomes[entry.name] = put(entry, workers // parallel, job)
                except (ValueError, OSError) as error:
                    outcomes[entry.name] = error
                except Stopped:
                    return

        # Daemons: the program's end waits for no server that does not answer.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(parallel)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            job.stop.set()  # Ctrl-C reaches the main thread only
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_GRACE_SECONDS / parallel)
            raise
    for entry in entries:
        assert entry.name in outcomes, "its thread has told of a bug above"
    return outcomes


def _refuse_shared(entries: Sequence[DatasetEntry]) -> None:
    """Look for datasets that cannot lie in one folder: two have a file of the same name."""
    owners: dict[str, str] = {}
    for entry in entries:
        for member in entry.splits.values():
            # Some file systems take names that differ in case for one.
            other = owners.setdefault(member.casefold(), entry.name)
            if other != entry.name:
                raise ValueError(
                    f"{other} and {entry.name} both hold {member}; fetch one with another --root"
                )


def check_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Compare what is needed with what is free; folders on one disk share its room.

    Args:
        needs: Folders, which need not exist, and the bytes that will be written below them.

    Raises:
        ValueError: A disk has too little room.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in needs:
        if size > 0:
            disks.setdefault(_existing(folder).stat().st_dev, []).append((folder, size))
    for group in disks.values():
        free = shutil.disk_usage(_existing(group[0][0])).free
        if (total := sum(size for _, size in group)) > free:
            parts = " and ".join(f"{format_bytes(size)} in {folder}" for folder, size in group)
            raise ValueError(
                f"not enough room on the disk: {format_bytes(total)} are needed ({parts}), "
                f"{format_bytes(free)} are free; make room or name folders on another disk"
            )


def _existing(folder: Path) -> Path:
    """Find the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def format_bytes(size: float) -> str:
    """Bytes for people, e.g. "16.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


class DatasetRoot:
    """A folder with fetched datasets; several processes may use it."""

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is touched."""
        self._root, self._state = root, root / FOLDER

    def is_current(self, entry: DatasetEntry) -> bool:
        """Whether this very dataset lies here, untouched since it was fetched."""
        receipt = read_receipt(self._receipt(entry))
        if receipt is None or receipt.sha256 != entry.sha256:
            return False
        members = entry.splits.values()
        holds = all(receipt.holds(member, self._root / member) for member in members)
        if not holds or set(receipt.files) != set(members):
            return False
        if os.path.lexists(self._part(entry)):  # of a fetch that was killed in its last moment
            shutil.rmtree(self._part(entry), ignore_errors=True)
        return True

    def is_staged(self, entry: DatasetEntry) -> bool:
        """Whether a stopped fetch has unpacked everything, so that only renames are left."""
        receipt = self._staged_receipt(entry)
        return receipt is not None and all(
            os.path.lexists(self._staged(entry) / member) or receipt.holds(member, self._root / member)
            for member in entry.splits.values()
        )

    def refuse_strangers(self, entry: DatasetEntry) -> None:
        """Look for files that this dataset would replace, did not put there itself and cannot be the same.

        Raises:
            ValueError: There is one.
        """
        strangers = self._strangers(entry)
        stamps = {member: Stamp.of(self._root / member) for member in entry.splits.values()}
        sizes = [0 if stamp is None else stamp.size for stamp in stamps.values()]
        fits = sum(sizes) == entry.unpacked if None not in stamps.values() else sum(sizes) < entry.unpacked
        for member in strangers:
            if stamps[member] is None or not fits:
                self._refuse(entry, member)

    def install(self, entry: DatasetEntry, tarball: Path, *, overwrite: bool, job: Job) -> None:
        """Put the dataset's files in place, all of them or none; those that are there already are adopted.

        Raises:
            ValueError: The tarball is not right, or another file is in the way without `overwrite`.
            OSError: The disk fails or is full.
        """
        if self._state.is_symlink():
            raise ValueError(f"{self._state} is a link; remove it, fetches keep their receipts there")
        self._state.mkdir(parents=True, exist_ok=True)
        with job.lock(self._state / entry.name):
            if self.is_current(entry):
                return
            if not overwrite:
                self.refuse_strangers(entry)
            if not self.is_staged(entry):
                self._stage(entry, tarball, job)
            # No dataset is called "_root": this lock is held for the renames only, by one dataset at a time.
            with job.lock(self._state / "_root"):
                for member in self._strangers(entry):
                    staged, target = self._staged(entry) / member, self._root / member
                    if os.path.lexists(staged) and identical(staged, target):
                        self._adopt(entry, member)
                    elif not overwrite:
                        self._refuse(entry, member)
                self._publish(entry)

    def _strangers(self, entry: DatasetEntry) -> list[str]:
        """Members in whose place something lies that this dataset did not put there."""
        known = (read_receipt(self._receipt(entry)), self._staged_receipt(entry))
        mine = [receipt for receipt in known if receipt and receipt.sha256 == entry.sha256]
        return [
            member
            for member in entry.splits.values()
            if os.path.lexists(path := self._root / member)
            and not any(receipt.holds(member, path) for receipt in mine)
        ]

    def _refuse(self, entry: DatasetEntry, member: str) -> None:
        """Raise ValueError about a file in the root that is none of ours."""
        path, installed = self._root / member, read_receipt(self._receipt(entry))
        others = [receipt.name for receipt in self._other_receipts(entry) if receipt.holds(member, path)]
        if others:
            reason = f"belongs to {others[0]}"
        elif installed is None or member not in installed.files:
            reason = "exists already and was not fetched"
        elif installed.holds(member, path):
            reason = f"is of another version of {entry.name}"
        else:
            reason = "has changed since it was fetched"
        raise ValueError(
            f"{path} {reason}; give --overwrite to replace it by the one of {entry.name}, or another --root"
        )

    def _stage(self, entry: DatasetEntry, tarball: Path, job: Job) -> None:
        """Unpack into the staging folder; after an error nothing is left of it."""
        folder, members = self._part(entry), tuple(entry.splits.values())
        _remove(folder)
        self._staged(entry).mkdir(parents=True)
        try:
            unpack(tarball, self._staged(entry), members=members, unpacked=entry.unpacked, job=job)
            for member in members:
                if (path := self._staged(entry) / member).is_dir():
                    getattr(os, "sync", bool)()  # perhaps a million small files
                else:
                    sync(path)
            Receipt.of(entry, self._staged(entry)).write(folder / f"{entry.name}.json")
        except BaseException:
            _remove(folder)
            raise

    def _adopt(self, entry: DatasetEntry, member: str) -> None:
        """Note that a file in the root is the staged one; `_publish` then leaves it."""
        receipt, found = self._staged_receipt(entry), Stamp.of(self._root / member)
        if receipt is not None and found is not None:
            path = self._part(entry) / f"{entry.name}.json"
            replace(receipt, files={**receipt.files, member: found}).write(path)

    def _publish(self, entry: DatasetEntry) -> None:
        """Rename the staged files to their places; a second call finishes this after a kill."""
        receipt = self._staged_receipt(entry)
        for member in entry.splits.values():
            staged, target = self._staged(entry) / member, self._root / member
            if not os.path.lexists(staged) or (receipt is not None and receipt.holds(member, target)):
                continue
            if os.path.lexists(target) and (staged.is_dir() or (target.is_dir() and not target.is_symlink())):
                # A rename replaces a file or a link by a file, but no folder that is not empty.
                old = self._part(entry) / "old" / member
                _remove(old)
                old.parent.mkdir(exist_ok=True)
                os.rename(target, old)
            os.replace(staged, target)
        members = set(entry.splits.values())
        for other in list(self._other_receipts(entry)):
            if members & set(other.files):
                (self._state / f"{other.name}.json").unlink()
        os.replace(self._part(entry) / f"{entry.name}.json", self._receipt(entry))
        _remove(self._part(entry))

    def _other_receipts(self, entry: DatasetEntry) -> "Iterator[Receipt]":
        """Receipts of the other datasets in the root."""
        for path in sorted(self._state.glob("*.json")):
            if path != self._receipt(entry) and (receipt := read_receipt(path)) is not None:
                yield receipt

    def _receipt(self, entry: DatasetEntry) -> Path:
        return self._state / f"{entry.name}.json"

    def _part(self, entry: DatasetEntry) -> Path:
        return self._state / f"{entry.name}.part"

    def _staged(self, entry: DatasetEntry) -> Path:
        return self._part(entry) / "files"

    def _staged_receipt(self, entry: DatasetEntry) -> "Receipt | None":
        """Read the receipt of a complete staging folder for this very dataset."""
        receipt = read_receipt(self._part(entry) / f"{entry.name}.json")
        return receipt if receipt is not None and receipt.sha256 == entry.sha256 else None


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all below it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def identical(one: Path, other: Path) -> bool:
    """Whether two files, or two folders with all below them, hold the same bytes; links are not followed."""
    if one.is_symlink() or other.is_symlink() or one.is_dir() != other.is_dir():
        return False
    if not one.is_dir():
        return other.is_file() and filecmp.cmp(one, other, shallow=False)
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all(identical(one / name, other / name) for name in names)


@dataclass(frozen=True)
class Stamp:
    """By what a file or folder is recognized without reading it.

    Attributes:
        files: Number of files; 1 for a file.
        size: Their bytes.
        times: mtime in nanoseconds; of a folder, a digest over names, sizes and times of all below it.
    """

    files: int
    size: int
    times: str

    @classmethod
    def of(cls, path: Path) -> "Stamp | None":
        """Look at a path; None if that is neither a file nor a folder (links are not followed)."""
        if path.is_symlink():
            return None
        if path.is_file():
            status = path.stat()
            return cls(1, status.st_size, str(status.st_mtime_ns))
        if not path.is_dir():
            return None
        digest, files, size = hashlib.sha256(), 0, 0
        for name, status in sorted(_tree(str(path), "")):
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(line.encode("utf-8", "surrogateescape"))
            files, size = files + 1, size + status.st_size
        return cls(files, size, digest.hexdigest())


def _tree(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names and states of all that is no folder below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)


@dataclass(frozen=True)
class Receipt:
    """What a fetch put into a root.

    Attributes:
        name: The dataset.
        sha256: Digest of its tarball.
        files: Name in the root -> stamp.
    """

    name: str
    sha256: str
    files: Mapping[str, Stamp]

    @classmethod
    def of(cls, entry: DatasetEntry, folder: Path) -> "Receipt":
        """Make the receipt for a dataset's files in a folder."""
        files = {}
        for member in entry.splits.values():
            stamp = Stamp.of(folder / member)
            if stamp is None:
                raise ValueError(f"{folder / member} vanished while it was being fetched; repeat the command")
            files[member] = stamp
        return cls(entry.name, entry.sha256, files)

    def holds(self, member: str, path: Path) -> bool:
        """Whether the file at a path is the one that was put there."""
        return member in self.files and Stamp.of(path) == self.files[member]

    def write(self, path: Path) -> None:
        """Write the receipt, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, **asdict(self), **provenance()}
        with written_aside(path) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())


def read_receipt(path: Path) -> Receipt | None:
    """Read a receipt; None where there is none, or none that can be understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']}")
        if content["name"] != path.stem:
            raise ValueError(f"of {content['name']!r}")
        files = {member: Stamp(**stamp) for member, stamp in content["files"].items()}
        return Receipt(content["name"], content["sha256"], files)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s is no receipt (%s); what it stood for counts as unknown", path, error)
        return None
