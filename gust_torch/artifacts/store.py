"""Where packaged datasets are kept: W&B, or any place that fsspec reaches.

One contract, `Store` for writing and `RemoteFile` for reading. Behind a URL, artifacts lie by content:

    <store>/<name>/<first 16 digits of sha256>/<file>
    <store>/<name>/<first 16 digits of sha256>/artifact.json   written last: the folder holds the whole file

Nothing is ever replaced by something else. Neither fsspec nor wandb is imported before it is needed.
"""

import contextlib
import json
import os
import posixpath
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from gust_torch.artifacts.reference import LOCAL, expand_reference, is_url, reference_problem, url_problem
from solvers.common.cli import REMEDIES
from solvers.common.files import WriterLock, path_aside, written_aside
from solvers.common.provenance import provenance
from solvers.common.urls import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

WANDB = "wandb"
DEFAULT_CACHE = Path("artifacts/cache")
DESCRIPTION = "artifact.json"
FORMAT_VERSION = 1
DIGITS = 16  # of the digest, in a folder's name

MAX_NAME_LENGTH = 128
_RESERVED_TYPES = ("job", "code", "run_table")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")

_S3 = ("s3", "s3a")
_S3_PART_BYTES = 16 << 20
_S3_MAX_PARTS = 9_000  # S3 takes 10,000
_CONNECT_TIMEOUT = 5  # seconds


def check_name(name: str, what: str) -> None:
    """Check the name or the type of an artifact by W&B's rule, whatever the store.

    Raises:
        ValueError: It is empty, longer than 128 characters, has characters other than letters, digits, "_",
            "-" and ".", or consists of dots.
    """
    if not _NAME.fullmatch(name) or not name.strip(".") or len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"the {what} {name[: MAX_NAME_LENGTH + 1]!r} must be 1 to {MAX_NAME_LENGTH} letters, digits, "
            f"'_', '-' and '.'; choose another {what}"
        )


def check_type(kind: str) -> None:
    """Check the type of an artifact: a name that W&B keeps for no purpose of its own."""
    check_name(kind, "artifact type")
    if kind in _RESERVED_TYPES or kind.startswith("wandb-"):
        raise ValueError(f"the artifact type {kind!r} is W&B's own; choose another, such as dataset or model")


@dataclass(frozen=True)
class Upload:
    """A file to be stored as an artifact.

    Attributes:
        name: Name of the artifact, such as "burgers1d-subset".
        type: Its type, such as "dataset".
        path: The file.
        metadata: A JSON object that describes it.
        sha256: Digest of the file's bytes, 64 hex digits.
        stamp: `stamp(path)` from before the digest was made.
    """

    name: str
    type: str
    path: Path
    metadata: Mapping[str, object]
    sha256: str
    stamp: tuple[int, ...]

    def check_unchanged(self) -> None:
        """Raise ValueError where the file is no longer the one that was hashed."""
        if stamp(self.path) != self.stamp:
            raise ValueError(
                f"{self.path} changed while it was uploaded; nothing was stored, upload it again"
            )


def stamp(path: Path) -> tuple[int, ...]:
    """Give what changes when a file is rewritten or replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@dataclass(frozen=True)
class StoredArtifact:
    """Where an artifact went.

    Attributes:
        reference: What the registry's `artifact:` takes.
        notes: Lines to print about what was done and what is left to do.
    """

    reference: str
    notes: tuple[str, ...] = ()

    def report(self) -> str:
        """Give the notes, and the reference alone on the last line."""
        return "\n".join([*self.notes, self.reference])


class RemoteFile(Protocol):
    """A stored file, to be read; a ValueError says that it cannot be.

    Attributes:
        name: File name without folders, such as "burgers1d_subset_v1.tar.gz".
        size: Bytes; None where the store does not tell.
        supports_ranges: Whether `read` works.
    """

    name: str
    size: int | None
    supports_ranges: bool

    def read(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read bytes start to stop, without stop, of each span; at the same time where the store can."""

    def download(self, path: Path) -> None:
        """Write the whole file to `path`; after an error `path` may be incomplete."""


class Store(Protocol):
    """A place that takes artifacts."""

    def check(self, name: str, file: str) -> None:
        """Find out whether a file can be stored, before time is spent on its bytes; ValueError where not."""

    def put(self, upload: Upload) -> StoredArtifact:
        """Store a file; readers see all of it or nothing. The same bytes with other metadata are refused."""


def open_store(
    store: str = WANDB,
    *,
    project: str | None = None,
    entity: str | None = None,
    run_name: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
) -> Store:
    """Open a store for uploads.

    Args:
        store: "wandb" or an fsspec URL such as "file:///data/store" or "s3://bucket/folder".
        project: W&B project; needed for W&B.
        entity: W&B entity; None means that of the login.
        run_name: Name of the W&B run that uploads.
        cache_dir: Folder below which W&B may keep its files.

    Raises:
        ValueError: The store is unknown, or its settings or its login are missing.
    """
    if store == WANDB:
        from gust_torch.artifacts.wandb_store import WandbStore

        return WandbStore(project, entity, run_name=run_name, cache_dir=cache_dir)
    if not is_url(store):
        raise ValueError(f"unknown store {store!r}; give wandb, file:///folder or s3://bucket/folder")
    return FsspecStore(store)


def open_reference(reference: str, *, cache_dir: Path = DEFAULT_CACHE) -> RemoteFile:
    """Open a stored file for reading.

    Args:
        reference: A URL, or a W&B artifact "entity/project/name:version".
        cache_dir: Folder below which W&B may keep its files.

    Raises:
        ValueError: There is no such file, it may not be read, or the store cannot be reached.
    """
    if is_url(reference):
        return FsspecFile(reference)
    from gust_torch.artifacts.wandb_store import WandbFile

    return WandbFile(expand_reference(reference), cache_dir=cache_dir)


class FsspecFile:
    """A `RemoteFile` behind a URL."""

    def __init__(self, url: str) -> None:
        """Look the file up.

        Raises:
            ValueError: There is no such file, it is a folder, or the store cannot be reached.
        """
        self._url, self._protocol = _checked(url), url.partition("://")[0]
        self._filesystem = _open(self._url)
        self._path = _path_of(self._filesystem, self._url)
        with _explained(self._url):
            info = _open(self._url, patient=False).info(self._path)
            if info["type"] == "directory":
                raise ValueError(f"{self._url} is a folder; name the file in it")
            self.name: str = posixpath.basename(self._path)
            self.size: int | None = info["size"]
            self.supports_ranges = self.size is not None and self._serves_last_byte(self.size)

    def _serves_last_byte(self, size: int) -> bool:
        """Try whether a web server reads ranges; the file of one that does not is not waited for."""
        if self._protocol not in ("http", "https"):
            return True
        try:
            with self._filesystem.open(self._path, size=size, cache_type="none") as file:
                file.seek(size - 1)
                return len(file.read(1)) == 1
        except ValueError:  # so fsspec says that all of it came
            return False

    def read(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read pieces."""
        starts, stops = [span[0] for span in spans], [span[1] for span in spans]
        pieces: list[bytes] = []
        with _explained(self._url):
            answers = self._filesystem.cat_ranges([self._path] * len(spans), starts, stops)
            for start, stop, piece in zip(starts, stops, answers, strict=True):
                if isinstance(piece, BaseException):
                    raise piece
                if len(piece) != stop - start:
                    raise ValueError(
                        f"{self._url}: {len(piece)} bytes came where {stop - start} were asked for; the file "
                        "was replaced meanwhile, or the server does not read ranges"
                    )
                pieces.append(piece)
        return pieces

    def download(self, path: Path) -> None:
        """Write the whole file."""
        with _explained(self._url):
            callback = _transfer(f"fetch {self.name}", self.size, most=self.size)
            self._filesystem.get_file(self._path, str(path), callback=callback)


class FsspecStore:
    """A `Store` behind a URL."""

    def __init__(self, url: str) -> None:
        """Open the filesystem.

        Raises:
            ValueError: The scheme is unknown, not installed, or cannot be written to.
        """
        self._url = _checked(url)
        self._protocol = url.partition("://")[0]
        if self._protocol in ("http", "https"):
            raise ValueError(
                f"{self._url}: a web server takes no uploads; use file:///folder or s3://bucket/folder"
            )
        self._filesystem = _open(self._url)

    def check(self, name: str, file: str) -> None:
        """Begin to write a file and give it up again, so that no reader sees it."""
        url = f"{self._url}/{name}/{file}"
        if (problem := reference_problem(url)) is not None:
            raise ValueError(f"the URL of the upload {problem}")
        if file == DESCRIPTION:
            raise ValueError(f"{file} is the name of the store's own file; rename yours")
        path = _path_of(self._filesystem, url)
        if self._protocol in LOCAL:
            _check_folder(Path(path).parent)
            return
        with _explained(self._url):
            filesystem = _open(self._url, patient=False)
            if self._protocol in _S3:
                bucket, key, _ = filesystem.split_path(path)
                begun = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
                filesystem.call_s3(
                    "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=begun["UploadId"]
                )
                return
            trial = posixpath.join(posixpath.dirname(path), f".{uuid.uuid4().hex[:8]}.part")
            filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
            filesystem.pipe_file(trial, b"0")
            filesystem.rm_file(trial)

    def put(self, upload: Upload) -> StoredArtifact:
        """Store a file; a second upload of the same bytes does nothing."""
        folder = f"{self._url}/{upload.name}/{upload.sha256[:DIGITS]}"
        size = upload.path.stat().st_size
        metadata = json.loads(json.dumps(upload.metadata))  # tuples become lists, as a reader finds them
        described = {
            "format_version": FORMAT_VERSION,
            "name": upload.name,
            "type": upload.type,
            "file": upload.path.name,
            "size": size,
            "sha256": upload.sha256,
            "metadata": metadata,
            "provenance": provenance(),
        }
        stored = self._stored(folder)
        if stored is not None:
            _check_same(stored, described, folder)
            note = f"{folder} has these bytes already; nothing was uploaded"
            return StoredArtifact(f"{folder}/{stored['file']}", (note,))
        url = f"{folder}/{upload.path.name}"
        with _explained(url):
            self._send(upload, url)
            kept = self._filesystem.size(_path_of(self._filesystem, url))
        if kept != size:
            raise ValueError(f"{url} has {kept} bytes where {size} were written; remove it and upload again")
        text = json.dumps(described, indent=2, sort_keys=True).encode() + b"\n"
        path = _path_of(self._filesystem, f"{folder}/{DESCRIPTION}")
        with _explained(folder):
            if self._protocol in LOCAL:
                with written_aside(Path(path)) as file:
                    file.write(text)
            else:
                self._filesystem.pipe_file(path, text)
        return StoredArtifact(url)

    def _send(self, upload: Upload, url: str) -> None:
        """Write the file, whole or not at all."""
        path, size = _path_of(self._filesystem, url), upload.path.stat().st_size
        if self._protocol in LOCAL:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with WriterLock(Path(path)), path_aside(Path(path)) as partial:
                shutil.copyfile(upload.path, partial)
                upload.check_unchanged()
            return
        parts = {"chunksize": max(_S3_PART_BYTES, size // _S3_MAX_PARTS), "max_concurrency": 4}
        callback = _transfer(f"upload {upload.path.name}", size)
        # In a thread, since Ctrl-C does not reach fsspec's: the next part then fails, and with it the upload.
        with ThreadPoolExecutor(1) as pool:
            options = parts if self._protocol in _S3 else {}
            sent = pool.submit(
                self._filesystem.put_file, str(upload.path), path, callback=callback, **options
            )
            try:
                sent.result()
            except BaseException:
                callback.stop = True
                raise
        try:
            upload.check_unchanged()
        except ValueError:
            self._filesystem.rm_file(path)
            raise

    def _stored(self, folder: str) -> dict[str, Any] | None:
        """Read the description of what a folder holds; None where it holds nothing, or not all of it."""
        url = f"{folder}/{DESCRIPTION}"
        with _explained(url):
            try:
                text = self._filesystem.cat_file(_path_of(self._filesystem, url))
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return None
        try:
            stored: dict[str, Any] = json.loads(text)
            name, size, _ = str(stored["file"]), stored["size"], (stored["type"], stored["sha256"])
            if not isinstance(size, int) or not isinstance(stored["metadata"], dict):
                raise TypeError
            if posixpath.basename(name) != name or name in ("", ".", "..", DESCRIPTION):
                raise ValueError
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ValueError(f"{url} is damaged; remove it and upload again") from None
        with _explained(url), contextlib.suppress(FileNotFoundError):
            if self._filesystem.size(_path_of(self._filesystem, f"{folder}/{name}")) == size:
                return stored
        return None


def _check_same(stored: Mapping[str, object], wanted: Mapping[str, object], folder: str) -> None:
    """Raise ValueError where a folder holds something else, or the same bytes described differently."""
    if stored["sha256"] != wanted["sha256"]:
        raise ValueError(f"{folder} holds other bytes with the same first {DIGITS} digits; use another name")
    if any(stored[key] != wanted[key] for key in ("type", "metadata")):
        there, here = (
            f"{item['type']} {json.dumps(item['metadata'], sort_keys=True)}" for item in (stored, wanted)
        )
        raise ValueError(
            f"{folder} has these bytes already, as {there}, not {here}; upload them under another name, or "
            f"remove {folder}/{DESCRIPTION} to describe them anew"
        )


def _check_folder(folder: Path) -> None:
    """Raise ValueError unless a folder on this machine exists and can be written to, or can be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file where a folder is needed; choose another store")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} cannot be written to; choose a store that you may write to")


def _checked(url: str) -> str:
    """Check a URL and take slashes from its end."""
    if (problem := url_problem(url)) is not None:
        raise ValueError(f"the URL {problem}")
    return url.rstrip("/") if url.partition("://")[2].strip("/") else url


def _path_of(filesystem: "AbstractFileSystem", url: str) -> str:
    """Give what a filesystem calls a URL; on this machine "%20" is a space, as `Path.as_uri` writes it."""
    path = str(filesystem._strip_protocol(url))
    return unquote(path) if url.partition("://")[0] in LOCAL else path


def _open(url: str, *, patient: bool = True) -> "AbstractFileSystem":
    """Open the filesystem of a URL; credentials come from the environment.

    Args:
        url: A checked URL.
        patient: Whether to try again for minutes; no where someone waits to hear whether something is there.

    Raises:
        ValueError: The scheme is unknown or its package is not installed.
    """
    import fsspec

    protocol = url.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        remedy = "pip install 'gust_torch[s3]'" if protocol in _S3 else str(error)
        raise ValueError(f"{url}: {protocol}:// is not installed; {remedy}") from error
    except ValueError as error:
        raise ValueError(
            f"{url}: unknown scheme {protocol}://; use file:///folder or s3://bucket/folder"
        ) from error
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in _S3:
        retries = {"total_max_attempts": 3 if patient else 2, "mode": "standard"}
        timeouts = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": 60 if patient else 10}
        options["config_kwargs"] = {**timeouts, "retries": retries}
    with _explained(url):
        filesystem = kind(**options)
    if protocol in _S3:
        filesystem.retries = 3 if patient else 1  # s3fs's own, on top
    return filesystem


def _transfer(text: str, size: int | None, most: int | None = None) -> "Callback":
    """Show a transfer of some size on a terminal, and end it when its `stop` is set or too much came."""
    from fsspec.callbacks import TqdmCallback

    class Transfer(TqdmCallback):
        stop = False

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.stop:
                raise OSError("stopped")
            if most is not None and self.value > most:
                raise ValueError(f"more than its {most} bytes came; the server is wrong, or the file changed")

    unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return Transfer(size=size, tqdm_kwargs={"desc": text, "leave": False, "disable": None, **unit})


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what a filesystem raises about a URL into a ValueError of one line, with a remedy."""
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError):  # fsspec says so of a web server that cannot be reached
            what = f"cannot be reached ({_text(error.__cause__)}); check the network"
            raise ValueError(f"{url}: {what}") from error.__cause__
        missing = "no such bucket" if _no_bucket(error) else "no such file or folder"
        endpoint = " and AWS_ENDPOINT_URL" if url.startswith("s3") else ""
        raise ValueError(f"{url}: {missing}; check the URL{endpoint}") from error
    except PermissionError as error:
        what = f"access denied ({_text(error)}); check the credentials and the permissions"
        raise ValueError(f"{url}: {what}") from error
    except (TimeoutError, ConnectionError) as error:
        raise ValueError(f"{url}: cannot be reached ({_text(error)}); check the network") from error
    except _client_errors() as error:
        raise ValueError(f"{url}: {_client_remedy(error)}") from error
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check the URL and the disk")
        raise ValueError(f"{url}: {_text(error)}; {remedy}") from error


def _no_bucket(error: FileNotFoundError) -> bool:
    """Whether the bucket is missing rather than the file; s3fs says so in the server's words only."""
    return "bucket" in str(error) and "exist" in str(error)


def _client_errors() -> tuple[type[Exception], ...]:
    """List what the clients that are loaded raise that is no OSError."""
    names = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("httpx", "HTTPError"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


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
    """Give what an error says, on one line; it may quote AWS_ENDPOINT_URL, which may hold a login."""
    if isinstance(error, OSError) and error.strerror:
        return redact(error.strerror.lower())
    return redact(" ".join(str(error).split())) or type(error).__name__
