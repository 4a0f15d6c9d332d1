"""Downloads a stored file: ranges in parallel where the store reads them, continued after a kill."""

import concurrent.futures
import functools
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gust_torch.artifacts.fetching.journal import PartialFile, discard, read_finished
from gust_torch.artifacts.fetching.watch import Watch, naming
from gust_torch.artifacts.stores.contract import RemoteFile
from solvers.common.files import file_sha256

RANGE_BYTES = 8 << 20  # the size S3 clients use: large enough for its latency, small enough to lose
FIRST_DELAY = 0.5  # seconds before the first repetition; doubled before each further one
ATTEMPTS = 5

_PERMANENT = (FileNotFoundError, PermissionError)

T = TypeVar("T")

log = logging.getLogger(__name__)


def download(remote: RemoteFile, part: Path, size: int, *, workers: int, watch: Watch) -> str:
    """Brings all of a remote file into `part`; a second call continues after any end of the first.

    Args:
        remote: The file.
        part: Where to; its folder exists.
        size: Bytes it must have.
        workers: Ranges read at the same time.
        watch: Progress and stop.

    Returns:
        The sha256 of `part`.

    Raises:
        ValueError: The remote file has another size, or its store fails again and again.
        OSError: The local disk fails or is full; what came so far is kept.
    """
    if remote.size is not None and remote.size != size:
        raise ValueError(
            f"{remote.name} has {remote.size} bytes in the store, the registry says {size}; correct the "
            "registry entry or upload the dataset again"
        )
    with naming(part):
        if remote.supports_ranges:
            return _download_ranges(remote, part, size, workers, watch)
        _repeated(functools.partial(_read_whole, remote, part, size), remote.name, watch)
        watch.count(size)
        return file_sha256(part, lambda _: watch.check())


def downloaded_bytes(part: Path, size: int) -> int:
    """Bytes of an unfinished download that need not come again."""
    return min(size, len(read_finished(part, size, RANGE_BYTES)) * RANGE_BYTES)


def _download_ranges(remote: RemoteFile, part: Path, size: int, workers: int, watch: Watch) -> str:
    """Read the missing ranges with threads and hashes all; the first error ends all.

    Raises:
        ValueError: As for `download`.
    """
    with PartialFile(part, size, RANGE_BYTES) as file:
        failed = threading.Event()

        def transfer(start: int, stop: int) -> None:
            if failed.is_set():
                return
            try:
                read = functools.partial(_read_range, remote, start, stop)
                file.write(start, _repeated(read, f"bytes {start} to {stop}", watch))
                watch.count(stop - start)
                file.hash_finished(watch)
            except BaseException:
                failed.set()  # here, before the next range of this thread begins
                raise

        with concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="download") as pool:
            try:
                futures = [pool.submit(transfer, *span) for span in file.pending]
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                failed.set()
                raise
        return file.sha256(watch)


def _read_range(remote: RemoteFile, start: int, stop: int) -> bytes:
    """One range.

    Raises:
        ValueError: It did not come, or not all of it.
    """
    data = remote.read_range(start, stop)
    if len(data) != stop - start:
        raise ValueError(f"{remote.name}: {len(data)} bytes came where {stop - start} were asked for")
    return data


def _read_whole(remote: RemoteFile, part: Path, size: int) -> None:
    """Lets the store write the file.

    Raises:
        ValueError: It did not come, or not all of it.
    """
    discard(part)
    remote.download(part)
    if (found := part.stat().st_size) != size:
        raise ValueError(f"{remote.name}: {found} bytes came where {size} were expected")
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _repeated(read: Callable[[], T], what: str, watch: Watch) -> T:
    """Repeats what fails, with growing delays, unless it is bound to fail again.

    Raises:
        ValueError: It failed each time.
        Stopped: The work is to end.
    """
    for attempt in range(ATTEMPTS):
        watch.check()
        try:
            return read()
        except ValueError as error:
            if attempt == ATTEMPTS - 1 or isinstance(error.__cause__, _PERMANENT):
                raise ValueError(f"{error}; the same command continues the download") from error
            delay = FIRST_DELAY * 2**attempt
            log.warning("%s: %s; again in %.1f s", what, error, delay)
        watch.sleep(delay)
    raise AssertionError("the last attempt returns or raises")
