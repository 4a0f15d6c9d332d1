"""Put packaged datasets of the registry into a folder: download, check, unpack, rename.

    <root>/burgers1d_train.h5 ...     the files
    <root>/.gust/<dataset>.json       receipt of what was put there: the next fetch knows its own files by it
    <root>/.gust/<dataset>.part/      an unfinished fetch

The receipt is written before the files get their names: after a kill between two renames, the next run knows
those that were moved.
"""

import filecmp
import functools
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gust_torch.artifacts.download import Count, byte_progress, missing_bytes, retrieve, waiting_lock
from gust_torch.artifacts.reference import expand_reference
from gust_torch.artifacts.registry import DatasetEntry, find_entries
from gust_torch.artifacts.store import DEFAULT_CACHE, open_reference
from gust_torch.artifacts.unpack import unpack
from solvers.common.cli import one_line, parse, run_command
from solvers.common.files import format_bytes, sync, written_aside
from solvers.common.provenance import provenance

FORMAT_VERSION = 1
FOLDER = ".gust"
_PARALLEL_DATASETS = 4
_GRACE_SECONDS = 4.0  # for threads to clean up after a signal

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
    prog = "python scripts/fetch_datasets.py"

    def run() -> int:
        options = parse(FetchOptions, arguments, prog=prog, description=main.__doc__ or "")
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        if options.names:
            fetch(options)
            return 0
        print(f"usage: {prog} NAME ... (--help lists the options)", file=sys.stderr)
        return 2

    return run_command(run)


def fetch(options: FetchOptions, *, report: Callable[[str], object] = print) -> None:
    """Put datasets into a folder, side by side; those that are there already cost nothing.

    `report` is given a line for each dataset that is in place, in the order of the names. A ValueError says
    that a name is unknown, a file is in the way, a disk is too small, or a dataset cannot be had.
    """
    if options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; give 1 or more")
    entries = find_entries(options.names, registry=options.registry, root=options.root)
    owners: dict[str, str] = {}
    for name, member in ((entry.name, member) for entry in entries for member in entry.splits.values()):
        # Some file systems take names that differ in case for one.
        if (other := owners.setdefault(member.casefold(), name)) != name:
            raise ValueError(f"{other} and {name} both hold {member}; fetch one with another --root")
    wanted = [target for target in (Target(options, entry) for entry in entries) if not target.is_current()]
    for target in wanted:
        target.prepare()
    missing = {target.entry.sha256: missing_bytes(options.cache, target.entry) for target in wanted}
    download = 0 if options.offline else sum(missing.values())
    unpacked = sum(target.entry.unpacked for target in wanted)
    _check_space((options.cache, download), (options.root, unpacked))
    outcomes = _side_by_side(wanted, options.workers, download + unpacked) if wanted else {}
    for entry in entries:
        if isinstance(outcome := outcomes.get(entry.name, "up to date"), str):
            files = " ".join(entry.splits.values())
            report(f"{entry.name}: {files}, {format_bytes(entry.unpacked)}, {options.root}, {outcome}")
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    if len(failed) > 1:
        lines = "; ".join(one_line(error) for error in failed)
        raise ValueError(f"{len(failed)} of {len(entries)} datasets could not be fetched: {lines}")
    for error in failed:
        raise error


def _side_by_side(targets: Sequence["Target"], workers: int, num_bytes: int) -> dict[str, str | Exception]:
    """Work on some datasets at a time; one that fails does not stop the others."""
    parallel = min(len(targets), workers, _PARALLEL_DATASETS)
    outcomes: dict[str, str | Exception] = {}
    left, stop = iter(targets), threading.Event()
    with byte_progress(num_bytes, "fetch") as progress:

        def count(size: int) -> None:
            if stop.is_set():
                sys.exit()  # ends the thread
            progress(size)

        def work() -> None:
            for target in left:
                try:
                    outcomes[target.entry.name] = target.fetch(workers // parallel, count)
                except (ValueError, OSError) as error:
                    outcomes[target.entry.name] = error

        # Daemons: the program's end waits for no server that does not answer.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(parallel)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            stop.set()  # Ctrl-C reaches the main thread only
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_GRACE_SECONDS / parallel)
            raise
    assert len(outcomes) == len(targets), "its thread has told of a bug above"
    return outcomes


def _check_space(*needs: tuple[Path, int]) -> None:
    """Refuse to write more bytes below folders than are free; those on one disk share its room."""
    disks: dict[int, list[tuple[Path, Path, int]]] = {}
    for folder, size in needs:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        disks.setdefault(existing.stat().st_dev, []).append((existing, folder, size))
    for group in disks.values():
        free = shutil.disk_usage(group[0][0]).free
        if sum(size for *_, size in group) > free:
            parts = " and ".join(f"{format_bytes(size)} in {folder}" for _, folder, size in group if size)
            remedy = "make room or name folders on another disk"
            raise ValueError(f"not enough room for {parts}: {format_bytes(free)} are free; {remedy}")


class Target:
    """A dataset in a folder of datasets, which several processes may use."""

    def __init__(self, options: FetchOptions, entry: DatasetEntry) -> None:
        """Name all places; nothing is touched."""
        self.entry, self._options, self._root = entry, options, options.root
        self._members = tuple(entry.splits.values())
        self._state = options.root / FOLDER
        self._receipt, self._part = (self._state / f"{entry.name}{end}" for end in (".json", ".part"))

    def is_current(self) -> bool:
        """Whether this very dataset lies here, untouched since it was fetched."""
        if len(self._own()) < len(self._members):
            return False
        if os.path.lexists(self._part):  # of a fetch that was killed in its last moment
            shutil.rmtree(self._part, ignore_errors=True)
        return True

    def prepare(self) -> None:
        """Find the reference, and refuse what would be replaced, is not ours and cannot be the same."""
        if not self._options.offline:
            words = {"entity": self._options.entity, "project": self._options.project}
            self._reference = expand_reference(self.entry.artifact, **words)
        own = self._own()
        stamps = {member: _stamp_of(self._root / member) for member in self._members}
        sizes = [stamp["size"] for stamp in stamps.values() if stamp]
        rest = self.entry.unpacked - sum(sizes)
        may_be_same = rest == 0 if len(sizes) == len(stamps) else rest > 0
        for member, stamp in stamps.items():
            if os.path.lexists(self._root / member) and member not in own and not (stamp and may_be_same):
                self._refuse(member)

    def fetch(self, workers: int, count: Count) -> str:
        """Put the files in place, all or none; adopt those that are there. Gives the report's last words."""
        remote = None
        if not self._options.offline:
            remote = functools.partial(open_reference, self._reference, cache_dir=self._options.cache)
        cache, staged = self._options.cache, self._part / "files"
        tarball, was_cached = retrieve(cache, self.entry, remote, workers=workers, count=count)
        if self._state.is_symlink():
            raise ValueError(f"{self._state} is a link; remove it, fetches keep their receipts there")
        self._state.mkdir(parents=True, exist_ok=True)
        with waiting_lock(self._state / self.entry.name, count):
            if not self.is_current():
                _remove(self._part)
                staged.mkdir(parents=True)
                try:
                    unpack(tarball, staged, members=self._members, unpacked=self.entry.unpacked, count=count)
                    for path in staged.iterdir():
                        if path.is_dir():
                            getattr(os, "sync", bool)()  # perhaps a million small files
                        else:
                            sync(path)
                    # No dataset is called "_root": held for the renames only, by one dataset at a time.
                    with waiting_lock(self._state / "_root", count):
                        self._publish(staged)
                finally:
                    _remove(self._part)
        return "from cache" if was_cached else "fetched"

    def _publish(self, staged: Path) -> None:
        """Write the receipt, then rename the staged files to their places."""
        files: dict[str, Any] = self._own()
        moves = []
        for member in self._members:
            if member in files:
                continue
            source, target = staged / member, self._root / member
            if os.path.lexists(target) and _identical(source, target):
                source = target  # adopted
            else:
                if os.path.lexists(target):
                    self._refuse(member)
                moves.append((source, target))
            files[member] = _stamp_of(source)
        for path in self._state.glob("*.json"):
            if path != self._receipt and set(self._members) & set(_read_receipt(path)["files"]):
                path.unlink()
        values = {"name": self.entry.name, "sha256": self.entry.sha256, "files": files}
        content = {"format_version": FORMAT_VERSION, **values, **provenance()}
        with written_aside(self._receipt) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())
        for source, target in moves:
            if os.path.lexists(target):  # a rename replaces no folder that is not empty
                os.rename(target, self._part / target.name)
            os.replace(source, target)

    def _own(self) -> dict[str, Stamp]:
        """Stamp those members in the root that are as this very dataset put them there."""
        receipt = _read_receipt(self._receipt)
        known = receipt["files"] if receipt["sha256"] == self.entry.sha256 else {}
        found = {member: _stamp_of(self._root / member) for member in self._members if known.get(member)}
        return {member: stamp for member, stamp in found.items() if stamp and stamp == known[member]}

    def _refuse(self, member: str) -> None:
        """Raise ValueError about a file in the root that is none of ours, unless it may be replaced."""
        if self._options.overwrite:
            return
        reason = "exists already and was not fetched"
        for receipt in sorted(self._state.glob("*.json")):
            if member in (files := _read_receipt(receipt)["files"]):
                is_theirs = files[member] == _stamp_of(self._root / member)
                reason = f"belongs to {receipt.stem}" if is_theirs else "has changed since it was fetched"
        remedy = f"give --overwrite to replace it by that of {self.entry.name}, or another --root"
        raise ValueError(f"{self._root / member} {reason}; {remedy}")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all below it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tree(path: Path) -> dict[str, os.stat_result]:
    """States of all that is no folder below a folder, by name, or of a file by ""; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return {"": path.lstat()} if os.path.lexists(path) else {}
    found: dict[str, os.stat_result] = {}
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below = _tree(path / entry.name)
                found |= {f"{entry.name}/{name}": status for name, status in below.items()}
            else:
                found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def _identical(one: Path, other: Path) -> bool:
    """Whether two files, or all files below two folders, hold the same bytes; links are none."""
    ours, theirs = _tree(one), _tree(other)
    return ours.keys() == theirs.keys() and all(
        stat.S_ISREG(theirs[name].st_mode) and filecmp.cmp(one / name, other / name, shallow=False)
        for name in ours
    )


def _stamp_of(path: Path) -> Stamp | None:
    """Give by what a file or folder is recognized without reading it; None if it is neither, or a link.

    `times` is the mtime in nanoseconds, of a folder a digest over names, sizes and times of all below it.
    """
    tree = _tree(path)
    if ("" in tree and not stat.S_ISREG(tree[""].st_mode)) or not os.path.lexists(path):
        return None
    lines = (f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0" for name, status in sorted(tree.items()))
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    times = str(tree[""].st_mtime_ns) if "" in tree else digest
    return {"files": len(tree), "size": sum(status.st_size for status in tree.values()), "times": times}


def _read_receipt(path: Path) -> dict[str, Any]:
    """Read `sha256` and `files` of what a fetch put into a root; empty where nothing can be understood."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if (receipt["format_version"], receipt["name"]) == (FORMAT_VERSION, path.stem):
            return {"sha256": receipt["sha256"], "files": dict(receipt["files"])}
        log.warning("%s is no receipt of this dataset; what it stood for counts as unknown", path)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        log.warning("%s is no receipt (%s); what it stood for counts as unknown", path, error)
    return {"sha256": None, "files": {}}
