"""Reads a file behind an fsspec URL, whole or in ranges."""

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from gust_torch.artifacts.stores.filesystem import QUESTION, explained, open_filesystem
from gust_torch.artifacts.stores.urls import LOCAL, StoreUrl, path_of

if TYPE_CHECKING:
    from fsspec.callbacks import Callback


class FsspecFile:
    """A `RemoteFile` behind a URL.

    Attributes:
        name: Last part of the URL.
        size: Bytes; None where a web server does not tell.
        supports_ranges: Whether ranges can be read, from several threads at once.
    """

    def __init__(self, url: StoreUrl) -> None:
        """Look the file up.

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
        with explained(url.text):
            self.supports_ranges = self._reads_ranges()

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
        """Write the whole file to `path`.

        Raises:
            ValueError: The store cannot be reached, or sends more than the size.
        """
        with explained(self._url.text):
            self._filesystem.get_file(self._path, str(path), callback=_at_most(self.size, self._url.text))

    def _reads_ranges(self) -> bool:
        """Whether threads may read ranges at the same time.

        fsspec's asynchronous filesystems (S3, Google, Azure, HTTP) run all requests in one loop, which
        threads may share; others, such as SFTP with its one connection, may not.
        """
        if self.size is None:
            return False
        if self._url.protocol in ("http", "https"):
            return self._serves_last_byte(self.size)
        return self._url.protocol in (*LOCAL, "memory") or bool(self._filesystem.async_impl)

    def _serves_last_byte(self, size: int) -> bool:
        """Try whether a web server reads ranges; the file of one that does not is not waited for."""
        try:
            with self._filesystem.open(self._path, size=size, cache_type="none") as file:
                file.seek(size - 1)
                return len(file.read(1)) == 1
        except ValueError:  # so fsspec says that all of it came
            return False


def _at_most(size: int | None, url: str) -> "Callback":
    """End a transfer that brings more than it should, before the disk is full."""
    from fsspec.callbacks import Callback

    class AtMost(Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if size is not None and self.value > size:
                raise ValueError(
                    f"{url}: more than its {size} bytes came; the server is wrong, or the file changed"
                )

    return AtMost()
