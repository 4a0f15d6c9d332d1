"""Downloads a stored tarball into the cache: in pieces, continued after a kill, and checked before any use.

<cache>/<sha256>/<dataset>.tar.gz               a tarball with that digest
<cache>/<sha256>/<dataset>.tar.gz.incomplete    the first bytes of one that is still coming
"""

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.store import RemoteFile
from solvers.common.files import WriterLock, file_sha256
from solvers.common.progress import Progress

PIECE_BYTES = 8 << 20  # the size S3 clients use: large enough for its latency, small enough to lose
FIRST_DELAY = 0.5  # seconds before the first repetition; doubled before each further one
ATTEMPTS = 5

_BLOCK_BYTES = 1 << 20
_MEGABYTE = 10**6
_PERMANENT = (FileNotFoundError, PermissionError)
_POLL_SECONDS = 0.1

T = TypeVar("T")

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Another thread asked to stop."""


@dataclass(frozen=True)
class Job:
    """How a long copy tells how far it came, and is stopped, from any thread.

    Attributes:
        progress: Called with the number of bytes done since the last call.
        stop: Set to end the work soon.
    """

    progress: Callable[[int], object] = lambda size: None
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, size: int) -> None:
        """Note `size` more bytes; raises Stopped where the work is to end."""
        if self.stop.is_set():
            raise Stopped
        self.progress(size)

    def wait(self, seconds: float) -> None:
        """Wait; raises Stopped where the work is to end."""
        self.stop.wait(seconds)
        self.count(0)

    @contextlib.contextmanager
    def lock(self, output: Path) -> Iterator[None]:
        """Hold the lock of `output`, whose folder exists; a living process that has it is waited for."""
        told = False
        while True:
            try:
                lock = WriterLock(output)
                break
            except BlockingIOError:
                if not told:
                    log.warning("%s: another process is working on it, waiting for that one", output)
                    told = True
                self.wait(_POLL_SECONDS)
        try:
            yield
        finally:
            lock.release()

    @staticmethod
    @contextlib.contextmanager
    def naming(path: Path) -> Iterator[None]:
        """Give errors of an open file ("No space left on device") its name."""
        try:
            yield
        except OSError as error:
            if error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise


class ByteProgress(Progress):
    """Progress in megabytes on standard error, counted in bytes by several threads. A context manager."""

    def __init__(self, num_bytes: int, description: str) -> None:
        """Start at zero."""
        super().__init__(num_bytes // _MEGABYTE, unit="MB", description=description)
        self._lock = threading.Lock()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Count bytes."""
        with self._lock:
            before = self._bytes // _MEGABYTE
            self._bytes += size
            if self._bytes // _MEGABYTE > before:
                self.update(self._bytes // _MEGABYTE - before)

    def __enter__(self) -> "ByteProgress":
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        nothing = None if self._bytes >= _MEGABYTE else Stopped  # no line about so little
        super().__exit__(kind or nothing, error, traceback)


class ArtifactCache:
    """The folder of tarballs; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is touched."""
        self._folder = folder

    def missing_bytes(self, entry: DatasetEntry) -> int:
        """Bytes that are still to come; 0 for a tarball that is there, right or not."""
        if self._find(entry) is not None:
            return 0
        part = _incomplete(self.path_of(entry))
        return entry.size - (min(part.stat().st_size, entry.size) if part.is_file() else 0)

    def path_of(self, entry: DatasetEntry) -> Path:
        """Where a tarball goes."""
        return self._folder / entry.sha256 / f"{entry.name}.tar.gz"

    def retrieve(
        self, entry: DatasetEntry, open_remote: Callable[[], RemoteFile] | None, *, workers: int, job: Job
    ) -> tuple[Path, bool]:
        """Give a tarball with the right digest.

        Args:
            entry: The dataset.
            open_remote: Finds the stored file; None for no network.
            workers: Pieces to download at the same time.
            job: Progress of the download, and stop.

        Returns:
            Its path, and whether it was there already.

        Raises:
            ValueError: It cannot be had, or its digest differs.
            OSError: The disk fails or is full.
        """
        target = self.path_of(entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        with job.lock(target.parent):
            cached = self._find(entry)
            if cached is not None:
                if file_sha256(cached, lambda _: job.count(0)) == entry.sha256:
                    return cached, True
                log.warning("%s is damaged and was removed", cached)
                cached.unlink()
            if open_remote is None:
                raise ValueError(
                    f"{entry.name} is not in the cache {self._folder}, and --offline forbids the network; "
                    f"run the command once without --offline, or put the tarball at {target}"
                )
            download(open_remote(), target, entry, workers=workers, job=job)
            return target, False

    def _find(self, entry: DatasetEntry) -> Path | None:
        """Look for a tarball, perhaps under the name of another dataset with the same content."""
        named = self.path_of(entry)
        others = sorted(named.parent.glob("*.tar.gz"))
        return next((path for path in (named, *others) if path.is_file()), None)


def download(remote: RemoteFile, target: Path, entry: DatasetEntry, *, workers: int, job: Job) -> None:
    """Bring a remote file; it gets its name when its digest is right, and a second call continues the first.

    Args:
        remote: The file.
        target: Where to; its folder exists.
        entry: Says its size and digest.
        workers: Pieces read at the same time.
        job: Progress and stop.

    Raises:
        ValueError: The remote file has another size or digest, or its store fails again and again.
        OSError: The local disk fails or is full; what came so far is kept.
    """
    if remote.size is not None and remote.size != entry.size:
        raise ValueError(
            f"{remote.name} has {remote.size} bytes in the store, the registry says {entry.size}; correct "
            "the registry entry or upload the dataset again"
        )
    part = _incomplete(target)
    with job.naming(part):
        if remote.supports_ranges:
            found = _download_pieces(remote, part, entry.size, workers, job)
        else:
            _repeated(lambda: _download_whole(remote, part, entry.size), remote.name, job)
            job.count(entry.size)
            found = file_sha256(part, lambda _: job.count(0))
    if found != entry.sha256:
        part.unlink()
        raise ValueError(
            f"{entry.name}: the downloaded {entry.artifact} has the sha256 {found}, the registry expects "
            f"{entry.sha256}; it was removed. Repeat the command; if it happens again, correct the registry "
            "or upload the dataset again"
        )
    os.replace(part, target)


def _incomplete(target: Path) -> Path:
    """Name the file with the first bytes of a download: its length says where to go on."""
    return target.with_name(f"{target.name}.incomplete")


def _download_pieces(remote: RemoteFile, part: Path, size: int, workers: int, job: Job) -> str:
    """Append what is missing, some pieces at a time; gives the sha256 of the whole."""
    digest = hashlib.sha256()
    with part.open("a+b") as file:
        have = min(file.seek(0, os.SEEK_END), size)
        file.truncate(have)
        file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            job.count(0)
        while have < size:
            starts = range(have, min(have + workers * PIECE_BYTES, size), PIECE_BYTES)
            spans = [(start, min(start + PIECE_BYTES, size)) for start in starts]
            what = f"bytes {spans[0][0]} to {spans[-1][1]}"
            for piece in _repeated(lambda spans=spans: remote.read(spans), what, job):  # type: ignore[misc]
                digest.update(piece)
                file.write(piece)
                have += len(piece)
                job.count(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _download_whole(remote: RemoteFile, part: Path, size: int) -> None:
    """Let the store write the file."""
    part.unlink(missing_ok=True)
    remote.download(part)
    if (found := part.stat().st_size) != size:
        raise ValueError(f"{remote.name}: {found} bytes came where {size} were expected")
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _repeated(read: Callable[[], T], what: str, job: Job) -> T:
    """Repeat what fails, with growing delays, unless it is bound to fail again.

    Raises:
        ValueError: It failed each time.
    """
    for attempt in range(ATTEMPTS):
        job.count(0)
        try:
            return read()
        except ValueError as error:
            if attempt == ATTEMPTS - 1 or isinstance(error.__cause__, _PERMANENT):
                raise ValueError(f"{error}; the same command continues the download") from error
            delay = FIRST_DELAY * 2**attempt
            log.warning("%s: %s; again in %.1f s", what, error, delay)
        job.wait(delay)
    raise AssertionError("the last attempt returns or raises")
