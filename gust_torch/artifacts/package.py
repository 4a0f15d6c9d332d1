"""Packs the files of a task into one tarball with a manifest, so that it can be uploaded and fetched as one.

The same files give the same tarball, byte for byte, wherever, whenever and with however many threads it is
packed (and with the same compressor, which the manifest names): its sha256 names the data.
"""

import gzip
import hashlib
import importlib.metadata
import inspect
import itertools
import json
import logging
import os
import re
import stat
import sys
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, BinaryIO, Literal

import tyro

from gust_torch.artifacts.download import ByteProgress
from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.registry import DatasetEntry, register, registry_beside
from gust_torch.artifacts.unpack import MemberNames
from gust_torch.artifacts.upload import parse_metadata
from solvers.common.cli import parse, run_command
from solvers.common.files import WriterLock, file_sha256, written_aside
from solvers.common.provenance import provenance
from solvers.common.splits import SPLITS, find_splits, find_tasks

if TYPE_CHECKING:
    from gust_torch.artifacts.describe import Description

try:
    from isal import igzip_threaded
except ImportError:  # no wheel for this platform
    igzip_threaded = None  # type: ignore[assignment]

FORMAT_VERSION = 1
# Fields in float32 hardly shrink, at whatever level.
LEVEL = 1

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
    return run_command(lambda: _main(arguments), stopped="stopped; nothing was written")


def _main(arguments: Sequence[str] | None) -> None:
    """Pack, print the entry, and register it where asked."""
    description = inspect.cleandoc(main.__doc__ or "")
    options = parse(
        PackageOptions, arguments, prog="python scripts/package_dataset.py", description=description
    )
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    logging.getLogger("gust_torch").setLevel(logging.INFO)
    if options.artifact is None and options.register:
        raise ValueError(
            "--register needs --artifact, the reference that scripts/upload_artifact.py prints; without "
            "--register the entry is printed with a placeholder"
        )
    if options.artifact is not None and (problem := reference_problem(options.artifact)) is not None:
        raise ValueError(f"--artifact {problem}")
    result = package(options)
    print(result.entry_yaml(options.artifact), end="")
    if options.register and options.artifact is not None:
        path = options.registry or registry_beside(options.root)
        changed = register(path, result.entry(options.artifact), overwrite=options.overwrite)
        log.info("%s: %s", path, "entry written" if changed else "has this entry already")


@dataclass(frozen=True)
class Package:
    """A packed data set.

    Attributes:
        draft: Its entry in the registry, but for the artifact.
        tarball: artifacts/NAME.tar.gz.
        manifest: artifacts/NAME.manifest.json.
        written: False where this very tarball was there already.
    """

    draft: DatasetEntry
    tarball: Path
    manifest: Path
    written: bool

    def entry(self, artifact: str) -> DatasetEntry:
        """Give the registry's entry.

        Args:
            artifact: Where the tarball lies.
        """
        return replace(self.draft, artifact=artifact)

    def entry_yaml(self, artifact: str | None = None) -> str:
        """Write the entry; without an artifact it has a placeholder, which `check` points at."""
        return self.draft.to_yaml(artifact or placeholder(self.draft.name))


def placeholder(name: str) -> str:
    """Make an artifact to fill in: `burgers1d_subset_v1` -> `<entity>/<project>/burgers1d-subset:v0`."""
    stem, _, version = name.rpartition("_v")
    name = stem if stem and version.isdigit() else name
    return f"<entity>/<project>/{name.replace('_', '-')}:v0"


def package(options: PackageOptions) -> Package:
    """Pack train, val and test files of a task.

    The manifest gets its name first: a run that is killed between the two leaves a manifest that fits no
    tarball, which the next run replaces.

    Returns:
        What was packed; nothing is written where this very tarball is there already.

    Raises:
        ValueError: No files, or invalid, unfinished or changing ones; another tarball and no `overwrite`.
        BlockingIOError: Another process is packing it.
        OSError: The disk is full; what was there stays.
    """
    from gust_torch.artifacts.describe import describe  # h5py takes its time

    name, workers = options.name, _num_cores() if options.workers is None else options.workers
    if workers < 1:
        raise ValueError(f"expected workers >= 1, got {workers}")
    task = find_task(name, options.root) if options.task is None else options.task
    wanted = options.splits and tuple(split for split in SPLITS if split in options.splits)
    sources = find_splits(options.root, task, wanted) or find_splits(options.root, task, SPLITS)
    descriptions = {split: describe(path) for split, path in sources.items()}
    draft = _draft(options, sources, descriptions)  # name and metadata, before anything long begins
    members = [member for path in sources.values() for member in list_members(path)]
    _check_names(members, draft)
    target, manifest = options.out / f"{name}.tar.gz", options.out / f"{name}.manifest.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    with WriterLock(target):
        noted = _existing(target, manifest, members, workers)
        written = noted is None
        if noted is not None:
            check_unchanged(members, sources.values())
            log.info("%s has these files already; nothing to do", target)
        elif target.exists() and not options.overwrite:
            raise ValueError(
                f"{target} exists and has other contents, or its manifest does not fit it; give "
                "--overwrite to replace it, or the package another name"
            )
        else:
            with written_aside(target) as file:
                noted, digests = _compress(file, name, members, workers)
                check_unchanged(members, sources.values())
                content = _manifest(draft, task, descriptions, {"file": target.name, **noted})
                content["files"] = _listing(members, digests)
                content["provenance"] = provenance()
                with written_aside(manifest) as description:
                    description.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    size = sum(member.size for member in members)
    draft = replace(draft, sha256=str(noted["sha256"]), size=target.stat().st_size, unpacked=size)
    return Package(draft, target, manifest, written)


def _draft(
    options: PackageOptions, sources: Mapping[str, Path], descriptions: "Mapping[str, Description]"
) -> DatasetEntry:
    """Make the entry before there is a tarball."""
    from gust_torch.artifacts.describe import common_kind, facts

    return DatasetEntry(
        name=options.name,
        artifact="not-uploaded:yet",
        kind=common_kind(sources, descriptions),
        splits={split: path.name for split, path in sources.items()},
        sha256="0" * 64,
        size=1,
        unpacked=1,
        metadata=facts(descriptions) if options.metadata is None else parse_metadata(options.metadata),
    )


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_task(name: str, root: Path) -> str:
    """Find the task that a package's name begins with: the longest of those that have files in `root`.

    Args:
        name: `burgers1d_subset_v1`.
        root: Folder of `burgers1d_train.h5` and others.

    Raises:
        ValueError: There is none.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; convert the task first, or change --root")
    tasks = find_tasks(root)
    fitting = [task for task in tasks if re.fullmatch(rf"{re.escape(task)}([_.-].*)?", name)]
    if not fitting:
        found = f"it has {', '.join(tasks)}" if tasks else "it has files of no task"
        raise ValueError(
            f"{root} has no files of a task that {name!r} begins with; {found}: give --task, change --root, "
            "or convert the task first (scripts/convert_pdebench_multimodal.py)"
        )
    return max(fitting, key=len)


@dataclass(frozen=True)
class Member:
    """A file or folder of the tarball.

    Attributes:
        name: Path in the tarball.
        path: Where it lies.
        size: Bytes; 0 for a folder.
        stamp: Changes when the file does; None for a folder, whose members say it.
    """

    name: str
    path: Path
    size: int
    stamp: tuple[int, ...] | None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.stamp is None

    def header(self) -> tarfile.TarInfo:
        """Describe it as root's, readable by all, as old as time."""
        info = tarfile.TarInfo(self.name)
        info.size = self.size
        info.type = tarfile.DIRTYPE if self.is_folder else tarfile.REGTYPE
        info.mode = 0o755 if self.is_folder else 0o644
        return info


def list_members(path: Path) -> list[Member]:
    """List a file, or a folder with everything below it in the order of the names, under its own name.

    Args:
        path: A file or folder; a symbolic link is followed, below it none is.

    Raises:
        ValueError: Something below is neither a file nor a folder.
    """
    return list(_walk(path, path.name, path.stat()))


def _walk(path: Path, name: str, status: os.stat_result) -> Iterator[Member]:
    """Yield the member at `path`, then those below it."""
    if stat.S_ISREG(status.st_mode):
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        yield Member(name, path, status.st_size, stamp)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(
            f"{path}: expected files and folders only, found a link or device; put in the file itself"
        )
    yield Member(name, path, 0, None)
    for child in sorted(os.listdir(path)):
        below = path / child
        yield from _walk(below, f"{name}/{child}", below.lstat())


def check_unchanged(members: Sequence[Member], roots: Iterable[Path]) -> None:
    """Make sure that files and folders are still what they were when they were listed.

    Args:
        members: As listed.
        roots: Where they were listed from.

    Raises:
        ValueError: One has changed, appeared or gone.
    """
    try:
        now = [member for path in roots for member in list_members(path)]
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: {_CHANGED}") from error
    for before, after in itertools.zip_longest(members, now):
        if before != after:
            raise ValueError(f"{(before or after).path}: {_CHANGED}")


def _check_names(members: Sequence[Member], entry: DatasetEntry) -> None:
    """Refuse what could not be fetched."""
    names = MemberNames(entry.splits.values())
    for member in members:
        try:
            names.add(member.name, folder=member.is_folder)
        except ValueError as error:
            raise ValueError(f"{member.path}: {error}; rename or remove it") from error


class _Reader:
    """A member's bytes as `tarfile` reads them, hashed and counted on the way."""

    def __init__(self, file: BinaryIO, progress: ByteProgress) -> None:
        self._file, self._progress, self.digest = file, progress, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        block = self._file.read(size)
        self.digest.update(block)
        self._progress.count(len(block))
        return block


class _Writer:
    """A file that is written, hashed and counted on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, block: bytes) -> int:
        """Write all of a block."""
        self.digest.update(block)
        self.size += len(block)
        return self._file.write(block)

    def flush(self) -> None:
        """Leave it to the file's end."""


def _compress(
    file: BinaryIO, name: str, members: Sequence[Member], workers: int
) -> tuple[dict[str, object], dict[str, str]]:
    """Write the compressed tarball to an open file: POSIX.1-2001, which GNU tar, bsdtar and Python read.

    Returns:
        What the manifest says of the tarball, and the sha256 of each file in it.
    """
    start, writer, digests = time.monotonic(), _Writer(file), {}
    unpacked = sum(member.size for member in members)
    with (
        ByteProgress(unpacked, name) as progress,
        _open_gzip(writer, workers) as stream,
        tarfile.open(  # type: ignore[call-overload]
            fileobj=stream,
            mode="w|",
            bufsize=_BLOCK_BYTES,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            copybufsize=_BLOCK_BYTES,
        ) as tar,
    ):
        for member in members:
            if member.is_folder:
                tar.addfile(member.header())
                continue
            with member.path.open("rb", buffering=0) as source:
                reader = _Reader(source, progress)
                try:
                    tar.addfile(member.header(), reader)
                except OSError as error:
                    if error.errno is None:  # tarfile's own: the file became shorter
                        raise ValueError(f"{member.path}: {_CHANGED}") from error
                    raise
            digests[member.name] = reader.digest.hexdigest()
            tar.members.clear()  # a store may have millions
    seconds = max(time.monotonic() - start, 1e-9)
    log.info(
        "%s: %.1f MB of files, packed to %.1f MB (%.1f %%) in %.1f s (%.0f MB/s)",
        name,
        unpacked / 1e6,
        writer.size / 1e6,
        100 * writer.size / max(unpacked, 1),
        seconds,
        unpacked / 1e6 / seconds,
    )
    noted = {
        "sha256": writer.digest.hexdigest(),
        "size": writer.size,
        "unpacked": unpacked,
        "compression": recipe(),
    }
    return noted, digests


def _open_gzip(writer: _Writer, workers: int) -> IO[bytes]:
    """Open a gzip stream whose bytes depend on the input alone."""
    if igzip_threaded is None:
        return gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=writer, mtime=0)
    return igzip_threaded.open(writer, "wb", compresslevel=LEVEL, threads=workers, block_size=_BLOCK_BYTES)


def recipe() -> dict[str, object]:
    """Say what the compressed bytes depend on beside the input."""
    if igzip_threaded is None:
        return {"format": "gzip", "level": LEVEL, "zlib": zlib.ZLIB_RUNTIME_VERSION}
    return {
        "format": "gzip", "level": LEVEL, "block": _BLOCK_BYTES, "isal": importlib.metadata.version("isal")
    }  # fmt: skip


def _manifest(
    entry: DatasetEntry, task: str, descriptions: "Mapping[str, Description]", tarball: Mapping[str, object]
) -> dict[str, object]:
    """Say what is in a tarball and where that came from."""
    return {
        "format_version": FORMAT_VERSION,
        "name": entry.name,
        "task": task,
        "kind": entry.kind,
        "splits": dict(entry.splits),
        "metadata": dict(entry.metadata),
        "sources": {split: dict(item.record) for split, item in descriptions.items()},
        "tarball": tarball,
    }


def _existing(
    target: Path, manifest: Path, members: Sequence[Member], workers: int
) -> dict[str, object] | None:
    """Read what the manifest says of a tarball where both are what packing `members` would make; else None.

    Reading and hashing take a fraction of the time of packing.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        noted, listing = dict(content["tarball"]), content["files"]
        if (content["format_version"], noted["compression"]) != (FORMAT_VERSION, recipe()):
            return None
        if target.stat().st_size != noted["size"]:
            return None
        sizes = [(item["path"], item.get("size")) for item in listing]
    except (FileNotFoundError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None  # missing, or not a manifest of ours
    if sizes != [(member.name, None if member.is_folder else member.size) for member in members]:
        return None
    files = [member for member in members if not member.is_folder]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda member: file_sha256(member.path), files)
        digests = {member.name: digest for member, digest in zip(files, found, strict=True)}
    return noted if listing == _listing(members, digests) and file_sha256(target) == noted["sha256"] else None


def _listing(members: Sequence[Member], digests: Mapping[str, str]) -> list[dict[str, object]]:
    """List files with size and sha256, folders by name."""
    return [
        {"path": member.name}
        if member.is_folder
        else {"path": member.name, "size": member.size, "sha256": digests[member.name]}
        for member in members
    ]
