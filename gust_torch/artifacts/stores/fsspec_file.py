"""Reads a file behind an fsspec URL, whole or in ranges."""

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from gust_torch.artifacts.stores.filesystem import QUESTION, explained, open_filesystem
from gust_torch.artifacts.stores.urls import LOCAL, StoreUrl, path_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class FsspecFile:
    """A `RemoteFile` behind a URL.

    Attributes:
        name: Last part of the URL.
        size: Bytes; None where a web server does not tell.
        supports_ranges: Whether ranges can be read, from several threads at once.
    """

    def __init__(self, url: StoreUrl) -> None:
        """Looks the file up.

        Raises:
            ValueError: There is no such file, it is a folder, or the store cannot be reached.
        """
        self._url = url
        self._filesystem = open_filesystem(url)
        self._path = path_of(self._filesystem, url.text)
        with explained(url.text):
            info = open_filesystem(url, QUESTION).info(self._path)
        if info["type"] == "directory":
            raise ValueError(f"{url.text} is a folder; name the file in it")
        self.name: str = posixpath.basename(self._path)
        self.size: int | None = info["size"]
        self.supports_ranges: bool = self.size is not None and _reads_ranges(self._filesystem, url, info)

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop, not including stop; safe to call from several threads.

        Raises:
            ValueError: The store cannot be reached or returns another number of bytes.
        """
        with explained(self._url.text):
            data: bytes = self._filesystem.cat_file(self._path, start=start, end=stop)
        if len(data) != stop - start:
            raise ValueError(
                f"{self._url.text}: {len(data)} bytes came where {stop - start} were asked for; the file was "
                "replaced meanwhile, or the server does not read ranges"
            )
        return data

    def download(self, path: Path) -> None:
        """Writes the whole file to `path`.

        Raises:
            ValueError: The store cannot be reached.
        """
        with explained(self._url.text):
            self._filesystem.get_file(self._path, str(path))


def _reads_ranges(filesystem: "AbstractFileSystem", url: StoreUrl, info: dict[str, object]) -> bool:
    """Whether threads may read ranges at the same time.

    fsspec's asynchronous filesystems (S3, Google, Azure, HTTP) run all requests in one loop, which threads
    may share; others, such as SFTP with its one connection, may not. A web server says what it can do.
    """
    if url.protocol in (*LOCAL, "memory"):
        return True
    return bool(filesystem.async_impl) and (
        url.protocol not in ("http", "https") or bool(info.get("partial"))
    )
