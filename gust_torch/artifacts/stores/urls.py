"""URLs of stores: which fsspec implementation they name, and what is refused in them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from gust_torch.artifacts.reference import is_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LOCAL = ("file", "local")
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
        """The URL of something below this one."""
        return "/".join([self.text, *parts])


def path_of(filesystem: "AbstractFileSystem", url: str) -> str:
    """What a filesystem calls a URL; on this machine "%20" is a space, as `Path.as_uri` writes it."""
    path = str(filesystem._strip_protocol(url))
    return unquote(path) if url.partition("://")[0] in LOCAL else path


def parse_url(url: str) -> StoreUrl:
    """Checks a URL.

    Raises:
        ValueError: It has no scheme, a password, a chain of schemes, a query, no path or bucket, or "..".
    """
    if not is_url(url):
        raise ValueError(f"{url!r} is no URL; write file:///folder for a folder, s3://bucket/folder for S3")
    protocol, _, path = url.partition("://")
    host = path.partition("/")[0]
    if "@" in host and ":" in host.rpartition("@")[0]:
        raise ValueError(
            f"a {protocol}:// URL holds a password; take it out and set the environment instead "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)"
        )
    if "::" in url or urlsplit(url).query or urlsplit(url).fragment:
        raise ValueError(f"{url!r} has '::', '?' or '#'; give a plain URL such as s3://bucket/folder")
    if ".." in path.split("/"):
        raise ValueError(f"{url!r} has '..' in it; give the URL without")
    if protocol in LOCAL and not path.startswith("/"):
        raise ValueError(f"{url!r} names no absolute path; write three slashes, as in file:///data/store")
    if protocol not in LOCAL and not host:
        raise ValueError(f"{url!r} names no bucket or host; write {protocol}://bucket/folder")
    return StoreUrl(url.rstrip("/") if path.strip("/") else url, protocol)
