"""Opens fsspec filesystems and says in one line what is wrong with them; fsspec is imported on first use."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gust_torch.artifacts.reference import shown_url
from gust_torch.artifacts.stores.urls import LOCAL, S3, StoreUrl
from solvers.common.cli import REMEDIES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONNECT_TIMEOUT = 5  # seconds


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        read_timeout: Seconds without a byte until a request is tried again.
        attempts: Tries of a request.
    """

    read_timeout: int
    attempts: int


QUESTION = Patience(10, 2)  # whether something is there: someone waits for the answer
TRANSFER = Patience(60, 3)


def open_filesystem(url: StoreUrl, patience: Patience = TRANSFER) -> "AbstractFileSystem":
    """Return the filesystem of a URL. Credentials come from the environment.

    Raises:
        ValueError: The scheme is unknown or its package is not installed.
    """
    import fsspec

    if url.protocol in LOCAL:
        return fsspec.filesystem("file")
    try:
        kind = fsspec.get_filesystem_class(url.protocol)
    except ImportError as error:
        raise ValueError(
            f"{url.text}: {url.protocol}:// is not installed; {_install(url.protocol)}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url.text}: unknown scheme {url.protocol}://; use file:///folder or s3://bucket/folder"
        ) from error
    options: dict[str, object] = {"use_listings_cache": False, "skip_instance_cache": True}
    if url.protocol in S3:
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": patience.read_timeout,
            "retries": {"total_max_attempts": patience.attempts, "mode": "standard"},
        }
    with explained(url.text):
        filesystem = kind(**options)
    if url.protocol in S3:
        filesystem.retries = 1 if patience is QUESTION else patience.attempts  # s3fs's own, on top
    return filesystem


def _install(protocol: str) -> str:
    """Command that installs the package of a scheme."""
    return (
        "pip install 'gust_torch[s3]'"
        if protocol in S3
        else f"pip install the fsspec package of {protocol}://"
    )


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what a filesystem raises about a URL into a ValueError with a remedy."""
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError):  # fsspec says so of a web server that cannot be reached
            text = _text(error.__cause__)
            raise ValueError(f"{url}: cannot be reached ({text}); check the network") from error.__cause__
        missing = "no such bucket" if no_bucket(error) else "no such file or folder"
        endpoint = " and AWS_ENDPOINT_URL" if url.startswith("s3") else ""
        raise ValueError(f"{url}: {missing}; check the URL{endpoint}") from error
    except PermissionError as error:
        raise ValueError(
            f"{url}: access denied ({_text(error)}); check the credentials and the permissions"
        ) from error
    except (TimeoutError, ConnectionError) as error:
        raise ValueError(f"{url}: cannot be reached ({_text(error)}); check the network") from error
    except _client_errors() as error:
        raise ValueError(f"{url}: {_client_remedy(error)}") from error
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check the URL and the disk")
        raise ValueError(f"{url}: {_text(error)}; {remedy}") from error


def no_bucket(error: FileNotFoundError) -> bool:
    """Whether the bucket is missing rather than the file; s3fs says so in the server's words only."""
    return "bucket" in str(error) and "exist" in str(error)


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what the S3 and HTTP clients raise that is no OSError; nothing while they are not loaded."""
    names = (("botocore.exceptions", ("BotoCoreError", "ClientError")), ("aiohttp", ("ClientError",)))
    return tuple(
        getattr(sys.modules[module], name)
        for module, kinds in names
        if module in sys.modules
        for name in kinds
    )


def _client_remedy(error: Exception) -> str:
    """One line for an error of a client."""
    kind = type(error).__name__
    if not type(error).__module__.startswith(("botocore", "aiobotocore")):
        return f"{_text(error)}; check the URL and the network"
    if "Credentials" in kind:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if kind == "NoRegionError":
        return "no region; set AWS_DEFAULT_REGION"
    if "Connect" in kind or "Timeout" in kind:
        return f"cannot be reached ({_text(error)}); check the network and AWS_ENDPOINT_URL"
    return f"{_text(error)}; check the URL and the AWS_... variables"


def _text(error: Exception) -> str:
    """Return what an error says, on one line; it may quote AWS_ENDPOINT_URL, which may hold a login."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    words = str(error).split()
    return " ".join(shown_url(word) if "://" in word else word for word in words) or type(error).__name__
