"""Download a stored tarball into the cache: in pieces, continued after a kill, and checked before any use.

<cache>/<sha256>/<dataset>.tar.gz               a tarball with that digest
<cache>/<sha256>/<dataset>.tar.gz.incomplete    the first bytes of one that is still coming
"""

import contextlib
import functools
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.store import Read, RemoteFile
from solvers.common.files import WriterLock, file_sha256, sync
from solvers.common.progress import Progress

PIECE_BYTES = 8 << 20  # the size S3 clients use: large enough for its latency, small enough to lose
FIRST_DELAY = 0.5  # seconds before the first repetition; doubled before each further one
ATTEMPTS = 5

_BLOCK_BYTES = 1 << 20
_MEGABYTE = 10**6

T = TypeVar("T")

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Another thread asked to stop."""


@dataclass(frozen=True)
class Job:
    """How a long copy tells how far it came, and is stopped, from any thread.

    Attributes:
        progress: Called with the number of bytes done since the last call.
        stop: Set to end the work soon: `count` and `wait` then raise Stopped.
    """

    progress: Callable[[int], object] = lambda size: None
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, size: int) -> None:
        """Note `size` more bytes."""
        if self.stop.is_set():
            raise Stopped
        self.progress(size)

    def wait(self, seconds: float) -> None:
        """Wait."""
        self.stop.wait(seconds)
        self.count(0)

    @contextlib.contextmanager
    def lock(self, output: Path) -> Iterator[None]:
        """Hold the lock of `output`, whose folder exists; a living process that has it is waited for."""
        told = False
        while True:
            try:
                lock = WriterLock(output, timeout=0.1)
                break
            except BlockingIOError:
                if not told:
                    log.warning("%s: another process is working on it, waiting for that one", output)
                told = True
                self.count(0)
        with lock:
            yield


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of an open file ("No space left on device") its name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def byte_progress(num_bytes: int, description: str) -> Iterator[Callable[[int], None]]:
    """Show progress in megabytes, but for a few bytes; yields what counts bytes, from any thread."""
    if num_bytes < _MEGABYTE:
        yield lambda size: None
        return
    lock, done = threading.Lock(), 0
    with Progress(num_bytes // _MEGABYTE, unit="MB", description=description) as progress:

        def count(size: int) -> None:
            nonlocal done
            with lock:
                before, done = done, done + size
                progress.update(done // _MEGABYTE - before // _MEGABYTE)

        yield count


def tarball_path(cache: Path, entry: DatasetEntry) -> Path:
    """Name the place of a tarball in the cache."""
    return cache / entry.sha256 / f"{entry.name}.tar.gz"


def missing_bytes(cache: Path, entry: DatasetEntry) -> int:
    """Count the bytes that are still to come; 0 for a tarball that is there, right or not."""
    part = _incomplete(tarball_path(cache, entry))
    if _find(cache, entry) is not None:
        return 0
    return entry.size - (min(part.stat().st_size, entry.size) if part.is_file() else 0)


def retrieve(
    cache: Path,
    entry: DatasetEntry,
    open_remote: Callable[[], RemoteFile] | None,
    *,
    workers: int,
    job: Job,
) -> tuple[Path, bool]:
    """Give a tarball with the right digest; several processes may use the cache.

    Args:
        cache: Folder of tarballs.
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
    target = tarball_path(cache, entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    with job.lock(target.parent):
        if (cached := _find(cache, entry)) is not None:
            if file_sha256(cached, lambda _: job.count(0)) == entry.sha256:
                return cached, True
            log.warning("%s is damaged and was removed", cached)
            cached.unlink()
        if open_remote is None:
            raise ValueError(
                f"{entry.name} is not in the cache {cache}, and --offline forbids the network; "
                f"run the command once without --offline, or put the tarball at {target}"
            )
        download(open_remote(), target, entry, workers=workers, job=job)
        return target, False


def _find(cache: Path, entry: DatasetEntry) -> Path | None:
    """Look for a tarball, perhaps under the name of another dataset with the same content."""
    named = tarball_path(cache, entry)
    return next((path for path in (named, *sorted(named.parent.glob("*.tar.gz"))) if path.is_file()), None)


def download(remote: RemoteFile, target: Path, entry: DatasetEntry, *, workers: int, job: Job) -> None:
    """Bring a remote file; it gets its name when its digest is right, and a second call continues the first.

    Raises:
        ValueError: The remote file has another size or digest than `entry` says, or its store fails again
            and again.
        OSError: The local disk fails or is full; what came so far is kept.
    """
    if remote.size not in (None, entry.size):
        raise ValueError(
            f"{remote.name} has {remote.size} bytes in the store, the registry says {entry.size}; correct "
            "the registry entry or upload the dataset again"
        )
    part = _incomplete(target)
    with naming(part):
        if remote.read is not None:
            found = _download_pieces(remote.read, part, entry.size, workers, job)
        else:
            _repeated(functools.partial(_download_whole, remote, part, entry.size), remote.name, job)
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


def _download_pieces(read: Read, part: Path, size: int, workers: int, job: Job) -> str:
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
            for piece in _repeated(functools.partial(read, spans), f"bytes from {have} on", job):
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
    sync(part)


def _repeated(read: Callable[[], T], what: str, job: Job) -> T:
    """Repeat what fails, with growing delays, unless it is bound to fail again."""
    delay, left = FIRST_DELAY, ATTEMPTS
    while True:
        job.count(0)
        try:
            return read()
        except ValueError as error:
            left -= 1
            if not left or isinstance(error.__cause__, (FileNotFoundError, PermissionError)):
                raise ValueError(f"{error}; the same command continues the download") from error
            log.warning("%s: %s; again in %.1f s", what, error, delay)
        job.wait(delay)
        delay *= 2
