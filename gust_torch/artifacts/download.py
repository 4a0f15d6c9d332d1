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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.store import Read, RemoteFile
from solvers.common.files import WriterLock, file_sha256, naming, sync
from solvers.common.progress import Progress

PIECE_BYTES = 8 << 20  # the size S3 clients use: large enough for its latency, small enough to lose
FIRST_DELAY = 0.5  # seconds before the first repetition; doubled before each further one
ATTEMPTS = 5
MEGABYTE = 10**6

T = TypeVar("T")
Count = Callable[[int], object]  # told of each number of bytes that are done, or 0; may raise to end the work

log = logging.getLogger(__name__)


@contextlib.contextmanager
def waiting_lock(output: Path, count: Count) -> Iterator[None]:
    """Hold the lock of `output`, whose folder exists; a living process that has it is waited for."""
    told = False
    while True:
        with contextlib.suppress(BlockingIOError):
            lock = WriterLock(output, timeout=0.1)
            break
        if not told:
            log.warning("%s: another process is working on it, waiting for that one", output)
        told = True
        count(0)
    with lock:
        yield


@contextlib.contextmanager
def byte_progress(num_bytes: int, description: str) -> Iterator[Count]:
    """Show progress in megabytes, but for a few bytes; yields what counts bytes, from any thread."""
    if num_bytes < MEGABYTE:
        yield lambda size: None
        return
    lock, done = threading.Lock(), 0
    with Progress(num_bytes // MEGABYTE, unit="MB", description=description) as progress:

        def count(size: int) -> None:
            nonlocal done
            with lock:
                before, done = done, done + size
                progress.update(done // MEGABYTE - before // MEGABYTE)

        yield count


def missing_bytes(cache: Path, entry: DatasetEntry) -> int:
    """Count the bytes that are still to come; 0 for a tarball that is there, right or not."""
    folder = cache / entry.sha256
    if next(folder.glob("*.tar.gz"), None):
        return 0
    part = _incomplete(folder / f"{entry.name}.tar.gz")
    return max(entry.size - part.stat().st_size, 0) if part.is_file() else entry.size


def retrieve(
    cache: Path,
    entry: DatasetEntry,
    open_remote: Callable[[], RemoteFile] | None,
    *,
    workers: int,
    count: Count,
) -> tuple[Path, bool]:
    """Give a tarball with the right digest, and whether it was in the cache, under whatever name.

    `open_remote` finds the stored file, None for no network; `workers` pieces come at a time, and `count` is
    told of their bytes. Several processes may use the cache.

    Raises:
        ValueError: It cannot be had, or its digest differs.
        OSError: The disk fails or is full.
    """
    target = cache / entry.sha256 / f"{entry.name}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(target.parent, count):
        if cached := next(target.parent.glob("*.tar.gz"), None):
            if file_sha256(cached, lambda _: count(0)) == entry.sha256:
                return cached, True
            log.warning("%s is damaged and was removed", cached)
            cached.unlink()
        if open_remote is None:
            remedy = f"run the command once without --offline, or put the tarball at {target}"
            raise ValueError(f"{entry.name} is not in the cache {cache}; {remedy}")
        download(open_remote(), target, entry, workers=workers, count=count)
        return target, False


def download(remote: RemoteFile, target: Path, entry: DatasetEntry, *, workers: int, count: Count) -> None:
    """Bring a remote file; it gets its name when its digest is right, and a second call continues the first.

    Raises:
        ValueError: The file has another size or digest than `entry` says, or its store fails repeatedly.
        OSError: The local disk fails or is full; what came so far is kept.
    """
    remedy = "correct the registry, or upload the dataset again"
    if remote.size not in (None, entry.size):
        found = f"{remote.size} bytes in the store, the registry says {entry.size}"
        raise ValueError(f"{remote.name} has {found}; {remedy}")
    part = _incomplete(target)
    with naming(part):
        if remote.read is not None:
            digest = _download_pieces(remote.read, part, entry.size, workers, count)
        else:
            _repeated(functools.partial(_download_whole, remote, part, entry.size), count)
            count(entry.size)
            digest = file_sha256(part, lambda _: count(0))
    if digest != entry.sha256:
        part.unlink()
        found = f"sha256 {digest}, the registry expects {entry.sha256}"
        raise ValueError(
            f"{entry.artifact} came with {found}; it was removed. Repeat the command, or {remedy}"
        )
    os.replace(part, target)


def _incomplete(target: Path) -> Path:
    """Name the file with the first bytes of a download: its length says where to go on."""
    return target.with_name(f"{target.name}.incomplete")


def _download_pieces(read: Read, part: Path, size: int, workers: int, count: Count) -> str:
    """Append what is missing, some pieces at a time; gives the sha256 of the whole."""
    digest = hashlib.sha256()
    with part.open("a+b") as file:
        have = min(file.seek(0, os.SEEK_END), size)
        file.truncate(have)
        file.seek(0)
        while block := file.read(1 << 20):
            digest.update(block)
            count(0)
        while have < size:
            starts = range(have, min(have + workers * PIECE_BYTES, size), PIECE_BYTES)
            spans = [(start, min(start + PIECE_BYTES, size)) for start in starts]
            for piece in _repeated(functools.partial(read, spans), count):
                digest.update(piece)
                file.write(piece)
                have += len(piece)
                count(len(piece))
    sync(part)
    return digest.hexdigest()


def _download_whole(remote: RemoteFile, part: Path, size: int) -> None:
    remote.download(part)
    if (found := part.stat().st_size) != size:
        raise ValueError(f"{remote.name}: {found} bytes came where {size} were expected")
    sync(part)


def _repeated(read: Callable[[], T], count: Count) -> T:
    """Repeat what fails, with growing delays, unless it is bound to fail again."""
    for attempt in range(ATTEMPTS):
        count(0)
        try:
            return read()
        except ValueError as error:
            is_final = isinstance(error.__cause__, (FileNotFoundError, PermissionError))
            if is_final or attempt == ATTEMPTS - 1:
                raise ValueError(f"{error}; the same command continues the download") from error
            delay = FIRST_DELAY * 2**attempt
            log.warning("%s; again in %.1f s", error, delay)
        time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")
