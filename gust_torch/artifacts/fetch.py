"""Put packaged datasets of the registry into a folder: download, check, unpack, rename.

    <root>/burgers1d_train.h5 ...     the files
    <root>/.gust/<dataset>.json       receipt of what was put there: the next fetch knows its own files by it
    <root>/.gust/<dataset>.part/      an unfinished fetch: files/, old/, its receipt once files/ is complete

A run that is killed between two renames is continued by the next, which knows the moved files by the receipt
in .part.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gust_torch.artifacts.download import Job, Stopped, byte_progress, missing_bytes, retrieve
from gust_torch.artifacts.reference import expand_reference
from gust_torch.artifacts.registry import DatasetEntry, find_entries
from gust_torch.artifacts.store import DEFAULT_CACHE, RemoteFile, open_reference
from gust_torch.artifacts.unpack import unpack
from solvers.common.cli import one_line, parse, run_command
from solvers.common.files import sync, written_aside
from solvers.common.provenance import provenance

FORMAT_VERSION = 1
FOLDER = ".gust"
_PARALLEL_DATASETS = 4
_GRACE_SECONDS = 4.0  # for threads to clean up after a signal

Outcome = str | ValueError | OSError  # "fetched", "from cache", or why not
Stamp = dict[str, Any]

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Put packaged datasets of the registry into a folder; a second run does nothing."""
    return run_command(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
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
    targets = [Target(options.root, entry) for entry in entries]
    wanted = [target for target in targets if not target.is_current()]
    openers = {target.entry.name: _opener(options, target.entry) for target in wanted}
    for target in wanted:
        if not options.overwrite:
            target.refuse_strangers()
    missing = {target.entry.sha256: missing_bytes(options.cache, target.entry) for target in wanted}
    download = sum(missing.values())
    unpacked = sum(target.entry.unpacked for target in wanted if not target.is_staged())
    check_space([(options.cache, 0 if options.offline else download), (options.root, unpacked)])

    def put(target: Target, workers: int, job: Job) -> str:
        entry = target.entry
        tarball, cached = retrieve(options.cache, entry, openers[entry.name], workers=workers, job=job)
        target.install(tarball, overwrite=options.overwrite, job=job)
        return "from cache" if cached else "fetched"

    outcomes = _side_by_side(put, wanted, options.workers, download + unpacked) if wanted else {}
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    for entry in entries:
        outcome = outcomes.get(entry.name, "up to date")
        if not isinstance(outcome, Exception):
            files = " ".join(entry.splits.values())
            report(f"{entry.name}: {files}, {format_bytes(entry.unpacked)}, {options.root}, {outcome}")
    if len(failed) == 1:
        raise failed[0]
    if failed:
        lines = "; ".join(one_line(error) for error in failed)
        raise ValueError(f"{len(failed)} of {len(entries)} datasets could not be fetched: {lines}")


def _opener(options: FetchOptions, entry: DatasetEntry) -> Callable[[], RemoteFile] | None:
    """Make what finds a dataset's stored file; None offline."""
    if options.offline:
        return None
    reference = expand_reference(entry.artifact, entity=options.entity, project=options.project)
    return functools.partial(open_reference, reference, cache_dir=options.cache)


def _side_by_side(
    put: Callable[["Target", int, Job], str], targets: Sequence["Target"], workers: int, size: int
) -> dict[str, Outcome]:
    """Work on some datasets at a time; one that fails does not stop the others."""
    parallel = min(len(targets), workers, _PARALLEL_DATASETS)
    outcomes: dict[str, Outcome] = {}
    left = list(reversed(targets))
    with byte_progress(size, "fetch") as count:
        job = Job(count)

        def work() -> None:
            while left and not job.stop.is_set():
                target = left.pop()
                try:
                    outcomes[target.entry.name] = put(target, workers // parallel, job)
                except (ValueError, OSError) as error:
                    outcomes[target.entry.name] = error
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
    assert len(outcomes) == len(targets), "its thread has told of a bug above"
    return outcomes


def _refuse_shared(entries: Sequence[DatasetEntry]) -> None:
    """Refuse datasets that cannot lie in one folder: two have a file of the same name."""
    owners: dict[str, str] = {}
    for name, member in ((entry.name, member) for entry in entries for member in entry.splits.values()):
        # Some file systems take names that differ in case for one.
        if (other := owners.setdefault(member.casefold(), name)) != name:
            raise ValueError(f"{other} and {name} both hold {member}; fetch one with another --root")


def check_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Compare the bytes that will be written below folders with what is free; one disk's room is shared.

    Raises:
        ValueError: A disk has too little room.
    """
    disks: dict[int, list[tuple[Path, Path, int]]] = {}
    for folder, size in needs:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        disks.setdefault(existing.stat().st_dev, []).append((existing, folder, size))
    for group in disks.values():
        free, total = shutil.disk_usage(group[0][0]).free, sum(size for *_, size in group)
        if total > free:
            parts = " and ".join(f"{format_bytes(size)} in {folder}" for _, folder, size in group if size)
            raise ValueError(
                f"not enough room on the disk: {format_bytes(total)} are needed ({parts}), "
                f"{format_bytes(free)} are free; make room or name folders on another disk"
            )


def format_bytes(size: float) -> str:
    """Bytes for people, e.g. "16.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


class Target:
    """A dataset in a folder of datasets, which several processes may use.

    Attributes:
        entry: The dataset.
    """

    def __init__(self, root: Path, entry: DatasetEntry) -> None:
        """Name all places; nothing is touched."""
        self.entry = entry
        self._root, self._members = root, tuple(entry.splits.values())
        self._state = root / FOLDER
        self._receipt = self._state / f"{entry.name}.json"
        self._part = self._state / f"{entry.name}.part"
        self._staged, self._staged_receipt = self._part / "files", self._part / f"{entry.name}.json"

    def is_current(self) -> bool:
        """Whether this very dataset lies here, untouched since it was fetched."""
        known = self._known(self._receipt)
        if set(known) != set(self._members) or not all(self._is(known, member) for member in known):
            return False
        if os.path.lexists(self._part):  # of a fetch that was killed in its last moment
            shutil.rmtree(self._part, ignore_errors=True)
        return True

    def is_staged(self) -> bool:
        """Whether a stopped fetch has unpacked everything, so that only renames are left."""
        known = self._known(self._staged_receipt)
        return bool(known) and all(
            os.path.lexists(self._staged / member) or self._is(known, member) for member in self._members
        )

    def refuse_strangers(self) -> None:
        """Refuse what this dataset would replace, did not put there itself and cannot be the same."""
        stamps = {member: stamp_of(self._root / member) for member in self._members}
        sizes = [stamp["size"] for stamp in stamps.values() if stamp]
        rest = self.entry.unpacked - sum(sizes)
        may_be_same = rest == 0 if len(sizes) == len(stamps) else rest > 0
        for member in self._members:
            if self._is_stranger(member) and not (stamps[member] and may_be_same):
                self._refuse(member)

    def install(self, tarball: Path, *, overwrite: bool, job: Job) -> None:
        """Put the dataset's files in place, all of them or none; those that are there already are adopted.

        Raises:
            ValueError: The tarball is not right, or another file is in the way without `overwrite`.
            OSError: The disk fails or is full.
        """
        if self._state.is_symlink():
            raise ValueError(f"{self._state} is a link; remove it, fetches keep their receipts there")
        self._state.mkdir(parents=True, exist_ok=True)
        with job.lock(self._state / self.entry.name):
            if self.is_current():
                return
            if not overwrite:
                self.refuse_strangers()
            if not self.is_staged():
                self._stage(tarball, job)
            # No dataset is called "_root": this lock is held for the renames only, by one dataset at a time.
            with job.lock(self._state / "_root"):
                self._publish(overwrite)

    def _stage(self, tarball: Path, job: Job) -> None:
        """Unpack into the staging folder; after an error nothing is left of it."""
        _remove(self._part)
        self._staged.mkdir(parents=True)
        try:
            unpack(tarball, self._staged, members=self._members, unpacked=self.entry.unpacked, job=job)
            for path in map(self._staged.joinpath, self._members):
                if path.is_dir():
                    getattr(os, "sync", bool)()  # perhaps a million small files
                else:
                    sync(path)
            self._write_receipt(self._staged_receipt, self._staged)
        except BaseException:
            _remove(self._part)
            raise

    def _publish(self, overwrite: bool) -> None:
        """Rename the staged files to their places; a second call finishes this after a kill."""
        moves = [member for member in self._members if os.path.lexists(self._staged / member)]
        for member in filter(self._is_stranger, tuple(moves)):
            if identical(self._staged / member, self._root / member):
                moves.remove(member)  # adopted
            elif not overwrite:
                self._refuse(member)
        (self._part / "old").mkdir(exist_ok=True)
        for member in moves:
            if os.path.lexists(self._root / member):  # a rename replaces no folder that is not empty
                _remove(self._part / "old" / member)
                os.rename(self._root / member, self._part / "old" / member)
            os.replace(self._staged / member, self._root / member)
        for path in self._state.glob("*.json"):
            if path != self._receipt and set(self._members) & set(read_receipt(path)["files"]):
                path.unlink()
        self._write_receipt(self._receipt, self._root)
        _remove(self._part)

    def _write_receipt(self, path: Path, folder: Path) -> None:
        """Note the files of this dataset in a folder."""
        files = {member: stamp_of(folder / member) for member in self._members}
        values = {"name": self.entry.name, "sha256": self.entry.sha256, "files": files}
        content = {"format_version": FORMAT_VERSION, **values, **provenance()}
        with written_aside(path) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())

    def _known(self, receipt: Path) -> dict[str, Stamp]:
        """Read the stamps of this very dataset's files from one of its receipts."""
        content = read_receipt(receipt)
        return content["files"] if content["sha256"] == self.entry.sha256 else {}

    def _is(self, known: dict[str, Stamp], member: str) -> bool:
        """Whether the file in the root is the one that was put there."""
        stamp = stamp_of(self._root / member)
        return stamp is not None and stamp == known.get(member)

    def _is_stranger(self, member: str) -> bool:
        """Whether something lies in a member's place that this dataset did not put there."""
        receipts = map(self._known, (self._receipt, self._staged_receipt))
        return os.path.lexists(self._root / member) and not any(self._is(known, member) for known in receipts)

    def _refuse(self, member: str) -> None:
        """Raise ValueError about a file in the root that is none of ours."""
        path = self._root / member
        reason, stamp = "exists already and was not fetched", stamp_of(path)
        for receipt in sorted(self._state.glob("*.json")):
            files = read_receipt(receipt)["files"]
            if member in files and files[member] == stamp:
                owner = "another version of " if receipt == self._receipt else ""
                reason = f"belongs to {owner}{receipt.stem}"
                break
            if member in files:
                reason = "has changed since it was fetched"
        raise ValueError(
            f"{path} {reason}; give --overwrite to replace it by that of {self.entry.name}, or another --root"
        )


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


def stamp_of(path: Path) -> Stamp | None:
    """Give by what a file or folder is recognized without reading it; None if it is neither, or a link.

    Returns:
        `files`, their number, `size` in bytes, and `times`: mtime in nanoseconds, of a folder a digest over
        names, sizes and times of all below it.
    """
    if path.is_file() and not path.is_symlink():
        status = path.stat()
        return {"files": 1, "size": status.st_size, "times": str(status.st_mtime_ns)}
    if not path.is_dir() or path.is_symlink():
        return None
    digest, files, size = hashlib.sha256(), 0, 0
    for name, status in sorted(_tree(str(path), "")):
        line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
        digest.update(line.encode("utf-8", "surrogateescape"))
        files, size = files + 1, size + status.st_size
    return {"files": files, "size": size, "times": digest.hexdigest()}


def _tree(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield names and states of all that is no folder below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)


def read_receipt(path: Path) -> dict[str, Any]:
    """Read `sha256` and `files` of what a fetch put into a root; empty where nothing can be understood."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if (receipt["format_version"], receipt["name"]) != (FORMAT_VERSION, path.stem):
            raise ValueError("of another format or dataset")
        return {"sha256": receipt["sha256"], "files": dict(receipt["files"])}
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        log.warning("%s is no receipt (%s); what it stood for counts as unknown", path, error)
    return {"sha256": None, "files": {}}
