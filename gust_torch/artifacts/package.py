"""Pack the files of a task into one tarball with a manifest, so that it can be uploaded and fetched as one.

The same files give the same tarball, byte for byte, wherever, whenever and with however many threads it is
packed (and with the same compressor, which the manifest names): its sha256 names the data.
"""

import gzip
import hashlib
import importlib.metadata
import inspect
import json
import logging
import os
import re
import stat
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, Literal, NamedTuple

import tyro

from gust_torch.artifacts.download import byte_progress
from gust_torch.artifacts.registry import DatasetEntry, default_registry, register
from gust_torch.artifacts.unpack import Seen, note_name
from gust_torch.artifacts.upload import parse_metadata
from solvers.common.cli import parse, run_command
from solvers.common.files import WriterLock, file_sha256, written_aside
from solvers.common.provenance import provenance
from solvers.common.splits import SPLITS, find_splits, find_tasks

try:
    from isal import igzip_threaded
except ImportError:  # no wheel for this platform
    igzip_threaded = None  # type: ignore[assignment]

FORMAT_VERSION = 1
LEVEL = 1  # fields in float32 hardly shrink, at whatever level

_BLOCK_BYTES = 1 << 20
_CHANGED = "changed while it was packed; wait until its writer is done, then pack again"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackageOptions:
    """What is packed, and where to."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Of the data set, such as burgers1d_subset_v1; begins with the task."""
    root: Path = Path("data/pdebench")
    """Where the files are."""
    task: str | None = None
    """Default: the longest with files in ROOT that NAME begins with."""
    splits: tuple[Literal["train", "val", "test"], ...] | None = None
    """Default: those that are there."""
    out: Path = Path("artifacts")
    """Where the tarball goes."""
    artifact: str | None = None
    """Reference to where it is or will be uploaded to, for the entry."""
    register: bool = False
    """Write the entry into the registry as well."""
    registry: Path | None = None
    """The registry to write; default $GUST_REGISTRY, else dataset_registry.yaml in ROOT."""
    metadata: str | None = None
    """A JSON object, or @FILE with one, instead of what the files say."""
    workers: int | None = None
    """Threads that compress; default one a core."""
    overwrite: bool = False
    """Replace another package or entry of this name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack train, val and test files of a task into OUT/NAME.tar.gz.

    It is described in OUT/NAME.manifest.json; the registry's entry comes on standard output.
    """
    description = inspect.cleandoc(main.__doc__ or "")
    prog = "python scripts/package_dataset.py"

    def run() -> None:
        options = parse(PackageOptions, arguments, prog=prog, description=description)
        logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
        logging.getLogger("gust_torch").setLevel(logging.INFO)
        if options.artifact is None and options.register:
            raise ValueError("--register needs --artifact, the reference that the upload prints")
        entry, _ = package(options)
        print(entry.to_yaml(options.artifact or placeholder(entry.name)), end="")
        if options.register:
            # Not the project's: that is tracked by git, and every later provenance would be "-dirty".
            path = options.registry or default_registry(options.root)
            changed = register(path, entry, overwrite=options.overwrite)
            log.info("%s: %s", path, "entry written" if changed else "has this entry already")

    return run_command(run, stopped="stopped; nothing was written")


def placeholder(name: str) -> str:
    """Make an artifact to fill in: `burgers1d_subset_v1` -> `<entity>/<project>/burgers1d-subset:v0`."""
    return f"<entity>/<project>/{re.sub(r'(?<=.)_v[0-9]+$', '', name).replace('_', '-')}:v0"


def package(options: PackageOptions) -> tuple[DatasetEntry, Path]:
    """Pack train, val and test files of a task; gives the registry's entry, and the tarball.

    The manifest gets its name first: a run that is killed between the two leaves a manifest that fits no
    tarball, which the next run replaces. Nothing is written where this very tarball is there already.

    Raises:
        ValueError: No files, or invalid, unfinished or changing ones; another tarball and no `overwrite`.
        BlockingIOError: Another process is packing it.
        OSError: The disk is full; what was there stays.
    """
    from gust_torch.artifacts.describe import describe, summarize  # h5py takes its time

    name = options.name
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"expected workers >= 1, got {options.workers}")
    has_affinity = hasattr(os, "sched_getaffinity")
    workers = options.workers or (len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
    task = find_task(name, options.root) if options.task is None else options.task
    wanted = options.splits and tuple(split for split in SPLITS if split in options.splits)
    sources = find_splits(options.root, task, wanted) or find_splits(options.root, task, SPLITS)
    described = [(path, describe(path)) for path in sources.values()]
    kind, facts = summarize(described)
    entry = DatasetEntry(  # name and metadata are checked before anything long begins
        name=name,
        artifact=options.artifact or "not-uploaded:yet",
        kind=kind,
        splits={split: path.name for split, path in sources.items()},
        sha256="0" * 64,
        size=1,
        unpacked=1,
        metadata=facts if options.metadata is None else parse_metadata(options.metadata),
    )
    members = list_members(sources.values())
    seen: Seen = {}
    for member in members:
        try:
            note_name(seen, member.name, is_folder=member.is_folder, expected=list(entry.splits.values()))
        except ValueError as error:
            raise ValueError(f"{member.path}: {error}; rename or remove it") from error
    target, manifest = options.out / f"{name}.tar.gz", options.out / f"{name}.manifest.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    with WriterLock(target):
        if tarball := _existing(target, manifest, members, workers):
            _check_unchanged(members, sources.values())
            log.info("%s has these files already; nothing to do", target)
        elif target.exists() and not options.overwrite:
            what = "exists and has other contents, or its manifest does not fit it"
            raise ValueError(f"{target} {what}; give --overwrite, or the package another name")
        else:
            with written_aside(target) as file:
                tarball, digests = _compress(file, name, members, workers)
                _check_unchanged(members, sources.values())
                content = {
                    "format_version": FORMAT_VERSION,
                    "name": name,
                    "task": task,
                    "kind": kind,
                    "splits": entry.splits,
                    "metadata": entry.metadata,
                    "sources": {
                        split: item.record for split, (_, item) in zip(sources, described, strict=True)
                    },
                    "tarball": {"file": target.name, **tarball},
                    "files": _listing(members, digests),
                    "provenance": provenance(),
                }
                with written_aside(manifest) as description:
                    description.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    values = {key: tarball[key] for key in ("sha256", "size", "unpacked")}
    return replace(entry, **values), target


def find_task(name: str, root: Path) -> str:
    """Find the task that a package's name begins with: the longest of those that have files in `root`."""
    tasks = find_tasks(root)
    fitting = [task for task in tasks if re.fullmatch(rf"{re.escape(task)}([_.-].*)?", name)]
    if not fitting:
        what = f"no files of a task that {name!r} begins with, it has {', '.join(tasks) or 'none'}"
        raise ValueError(f"{root} has {what}: give --task, change --root, or convert the task first")
    return max(fitting, key=len)


class Member(NamedTuple):
    """A file or folder of the tarball: its path in there, where it lies, and what changes when the file does.

    Of a folder `size` is 0 and `stamp` is ().
    """

    name: str
    path: Path
    size: int
    stamp: tuple[int, ...]

    @property
    def is_folder(self) -> bool:
        return not self.stamp


def list_members(paths: Iterable[Path]) -> list[Member]:
    """List files, and folders with all below them in the order of the names, under their own names.

    A symbolic link is followed; a ValueError says that there is one below, or a device.
    """
    return [member for path in paths for member in _walk(path, path.name, path.stat())]


def _walk(path: Path, name: str, status: os.stat_result) -> Iterator[Member]:
    if stat.S_ISREG(status.st_mode):
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        yield Member(name, path, status.st_size, stamp)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path}: expected files and folders, found a link or device; pack the file itself")
    yield Member(name, path, 0, ())
    for child in sorted(os.listdir(path)):
        yield from _walk(path / child, f"{name}/{child}", (path / child).lstat())


def _check_unchanged(members: Sequence[Member], paths: Iterable[Path]) -> None:
    """Raise ValueError where a file or folder has changed, appeared or gone since it was listed."""
    try:
        if changed := set(members) ^ set(list_members(paths)):
            raise ValueError(f"{min(changed).path}: {_CHANGED}")
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: {_CHANGED}") from error


class _Hashed:
    """An open file whose bytes are hashed and counted on their way, in either direction."""

    def __init__(self, file: BinaryIO, count: Callable[[int], object] = lambda size: None) -> None:
        self._file, self._count, self.digest, self.size = file, count, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        return self._passed(self._file.read(size))

    def write(self, block: bytes) -> int:
        return self._file.write(self._passed(block))

    def flush(self) -> None:
        """Leave it to the file's end."""

    def _passed(self, block: bytes) -> bytes:
        self.digest.update(block)
        self.size += len(block)
        self._count(len(block))
        return block


def _compress(
    file: BinaryIO, name: str, members: Sequence[Member], workers: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the tarball (POSIX.1-2001); gives what the manifest says of it, and each file's sha256."""
    start, packed, digests = time.monotonic(), _Hashed(file), {}
    unpacked = sum(member.size for member in members)
    blocks: dict[str, Any] = {"bufsize": _BLOCK_BYTES, "copybufsize": _BLOCK_BYTES}
    with (
        byte_progress(unpacked, name) as count,
        _open_gzip(packed, workers) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", **blocks) as tar,
    ):
        for member in members:
            if member.is_folder:
                tar.addfile(header(member))
                continue
            with member.path.open("rb", buffering=0) as raw:
                source = _Hashed(raw, count)
                try:
                    tar.addfile(header(member), source)
                except OSError as error:
                    if error.errno is None:  # tarfile's own: the file became shorter
                        raise ValueError(f"{member.path}: {_CHANGED}") from error
                    raise
            digests[member.name] = source.digest.hexdigest()
            tar.members.clear()  # type: ignore[attr-defined]  # a store may have millions
    seconds = max(time.monotonic() - start, 1e-9)
    sizes = f"{unpacked / 1e6:.1f} MB of files, packed to {packed.size / 1e6:.1f} MB"
    share, speed = 100 * packed.size / max(unpacked, 1), unpacked / 1e6 / seconds
    log.info("%s: %s (%.1f %%) in %.1f s (%.0f MB/s)", name, sizes, share, seconds, speed)
    facts = {"sha256": packed.digest.hexdigest(), "size": packed.size, "unpacked": unpacked}
    return {**facts, "compression": recipe()}, digests


def header(member: Member) -> tarfile.TarInfo:
    """Describe a member as root's, readable by all, as old as time."""
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if member.is_folder else (tarfile.REGTYPE, 0o644)
    return info


def _open_gzip(file: Any, workers: int) -> IO[bytes]:
    """Open a gzip stream whose bytes depend on the input alone."""
    if igzip_threaded is None:
        return gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0)
    return igzip_threaded.open(file, "wb", compresslevel=LEVEL, threads=workers, block_size=_BLOCK_BYTES)


def recipe() -> dict[str, object]:
    """Say what the compressed bytes depend on beside the input."""
    if igzip_threaded is None:
        return {"format": "gzip", "level": LEVEL, "zlib": zlib.ZLIB_RUNTIME_VERSION}
    isal = importlib.metadata.version("isal")
    return {"format": "gzip", "level": LEVEL, "block": _BLOCK_BYTES, "isal": isal}


def _existing(target: Path, manifest: Path, members: Sequence[Member], workers: int) -> dict[str, Any]:
    """Read what the manifest says of a tarball where both are what packing `members` would make; else {}."""
    files = {member.name: member.path for member in members if not member.is_folder}
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        tarball = dict(content["tarball"])
        wanted = FORMAT_VERSION, recipe(), target.stat().st_size
        found = content["format_version"], tarball["compression"], tarball["size"]
        if found == wanted and file_sha256(target) == tarball["sha256"]:
            with ThreadPoolExecutor(workers) as pool:
                digests = dict(zip(files, pool.map(file_sha256, files.values()), strict=True))
            if content["files"] == _listing(members, digests):
                return tarball
    except (FileNotFoundError, ValueError, TypeError, LookupError, RecursionError):
        pass  # missing, or not a manifest of ours
    return {}


def _listing(members: Sequence[Member], digests: dict[str, str]) -> list[dict[str, object]]:
    """List files with size and sha256, folders by name."""
    facts = ({"size": item.size, "sha256": digests[item.name]} if item.stamp else {} for item in members)
    return [{"path": item.name, **values} for item, values in zip(members, facts, strict=True)]
