"""Writes a file behind a URL so that readers see all of it or nothing."""

import contextlib
import logging
import math
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from gust_torch.artifacts.stores.urls import LOCAL, S3

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Object stores whose objects appear when their last part is confirmed. Elsewhere a file is written under
# another name and renamed.
_APPEARS_WHOLE = (*S3, "gs", "gcs")
_PART_SIZE = 16 * 2**20
_MAX_PARTS = 9_000  # S3 takes 10,000

log = logging.getLogger(__name__)


@contextlib.contextmanager
def write_whole(filesystem: "AbstractFileSystem", protocol: str, path: str, size: int) -> Iterator[IO[bytes]]:
    """A file to write to; it appears at `path` when the block ends without an exception.

    Args:
        filesystem: Where to write.
        protocol: Its scheme.
        path: Where the file shall appear; missing folders are made.
        size: About how many bytes will be written, which decides the size of an upload's parts.
    """
    write = (
        _in_parts(filesystem, path, size)
        if protocol in _APPEARS_WHOLE
        else _aside(filesystem, protocol, path)
    )
    with write as file:
        yield file


def probe(filesystem: "AbstractFileSystem", protocol: str, path: str) -> None:
    """Writes a byte and takes it back; raises what the filesystem raises."""
    if protocol in _APPEARS_WHOLE:
        file = filesystem.open(path, "wb", block_size=_PART_SIZE, autocommit=False)
        try:
            file.write(b"0")
            file.close()  # sends the part; without commit() there is no object
        finally:
            _discard(file)
        return
    temporary = _temporary(path)
    filesystem.makedirs(posixpath.dirname(temporary), exist_ok=True)
    filesystem.pipe_file(temporary, b"0")
    filesystem.rm_file(temporary)


@contextlib.contextmanager
def _in_parts(filesystem: "AbstractFileSystem", path: str, size: int) -> Iterator[IO[bytes]]:
    """A multipart upload, confirmed at the end or given up."""
    part = max(_PART_SIZE, math.ceil(size / _MAX_PARTS))
    file = filesystem.open(path, "wb", block_size=part, autocommit=False)
    try:
        yield file
        file.close()
        file.commit()
    except BaseException:
        # Leaving fsspec's own `with` would confirm what was sent so far, a truncated file.
        _discard(file)
        raise


@contextlib.contextmanager
def _aside(filesystem: "AbstractFileSystem", protocol: str, path: str) -> Iterator[IO[bytes]]:
    """A file under another name, renamed at the end or removed."""
    temporary = _temporary(path)
    filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
    file = filesystem.open(temporary, "wb")
    try:
        yield file
        if protocol in LOCAL:
            file.flush()
            os.fsync(file.fileno())
        file.close()
        filesystem.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
            filesystem.rm_file(temporary)
        raise


def _temporary(path: str) -> str:
    """A hidden name beside a path."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.part")


def _discard(file: IO[bytes]) -> None:
    """Gives an upload up; what goes wrong now hides no earlier error."""
    try:
        file.discard()  # type: ignore[attr-defined]
    except OSError as error:
        log.debug("parts of an upload were left behind: %s", error)
    finally:
        file.closed = True  # type: ignore[misc]  # or it would try to send the rest when collected
