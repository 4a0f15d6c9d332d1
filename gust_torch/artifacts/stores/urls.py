"""URLs of stores: which fsspec implementation they name, and what is refused in them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from gust_torch.artifacts.reference import LOCAL, is_url, url_problem

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

S3 = ("s3", "s3a")


@dataclass(frozen=True)
class StoreUrl:
    """A validated URL.

    Attributes:
        text: The URL without slashes at its end.
        protocol: "file", "s3", ...
    """

    text: str
    protocol: str

    def join(self, *parts: str) -> str:
        """Return the URL of something below this one."""
        return "/".join([self.text, *parts])


def path_of(filesystem: "AbstractFileSystem", url: str) -> str:
    """Return what a filesystem calls a URL; on this machine "%20" is a space, as `Path.as_uri` writes it."""
    path = str(filesystem._strip_protocol(url))
    return unquote(path) if url.partition("://")[0] in LOCAL else path


def parse_url(url: str) -> StoreUrl:
    """Check a URL.

    Raises:
        ValueError: It has no scheme, a password, a chain of schemes, a query, no path or bucket, or "..".
    """
    if not is_url(url):
        raise ValueError(f"{url!r} is no URL; write file:///folder for a folder, s3://bucket/folder for S3")
    if (problem := url_problem(url)) is not None:
        raise ValueError(f"the URL {problem}")
    protocol, _, path = url.partition("://")
    return StoreUrl(url.rstrip("/") if path.strip("/") else url, protocol)
