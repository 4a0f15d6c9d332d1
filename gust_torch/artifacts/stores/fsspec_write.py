"""Writes a file behind a URL so that readers see all of it or nothing."""

import contextlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from gust_torch.artifacts.stores.s3_parts import S3Parts
from gust_torch.artifacts.stores.urls import LOCAL, S3

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Target(Protocol):
    """Something that takes bytes."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""


@contextlib.contextmanager
def write_whole(filesystem: "AbstractFileSystem", protocol: str, path: str, size: int) -> Iterator[Target]:
    """Yield a file to write to; it appears at `path` when the block ends without an exception.

    Args:
        filesystem: Where to write.
        protocol: Its scheme.
        path: Where the file shall appear; missing folders are made.
        size: How many bytes will be written.
    """
    write = _in_parts(filesystem, path, size) if protocol in S3 else _aside(filesystem, protocol, path)
    with write as file:
        yield file


def probe(filesystem: "AbstractFileSystem", protocol: str, path: str) -> None:
    """Write a byte and takes it back; raises what the filesystem raises."""
    if protocol in S3:
        upload = S3Parts(filesystem, path, 1)
        try:
            upload.write(b"0")
            upload.flush()
        finally:
            upload.discard()
        return
    temporary = _temporary(path)
    filesystem.makedirs(posixpath.dirname(temporary), exist_ok=True)
    filesystem.pipe_file(temporary, b"0")
    filesystem.rm_file(temporary)


@contextlib.contextmanager
def _in_parts(filesystem: "AbstractFileSystem", path: str, size: int) -> Iterator[Target]:
    """Yield an upload in parts, confirmed at the end or given up.

    fsspec's own files confirm what was sent so far when a `with` ends with an exception: a truncated object.
    """
    upload = S3Parts(filesystem, path, size)
    try:
        yield upload
        upload.commit()
    except BaseException:
        upload.discard()
        raise


@contextlib.contextmanager
def _aside(filesystem: "AbstractFileSystem", protocol: str, path: str) -> Iterator[Target]:
    """Yield a file under another name, renamed at the end or removed."""
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
            file.close()  # what a full disk does not take fails once more
        with contextlib.suppress(OSError):
            filesystem.rm_file(temporary)
        raise


def _temporary(path: str) -> str:
    """Return a hidden name beside a path."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.part")
