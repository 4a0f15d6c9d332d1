"""Where packaged datasets are kept: W&B, or any place that fsspec reaches.

Behind a URL, artifacts lie by content, and nothing is ever replaced by something else:

    <store>/<name>/<first 16 digits of sha256>/<file>
    <store>/<name>/<first 16 digits of sha256>/artifact.json   written last: the folder holds the whole file

Neither fsspec nor wandb is imported before it is needed.
"""

import contextlib
import json
import posixpath
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gust_torch.artifacts.reference import LOCAL, expand_reference, is_url, reference_problem, url_problem
from solvers.common.cli import REMEDIES
from solvers.common.files import WriterLock, path_aside, written_aside
from solvers.common.provenance import provenance
from solvers.common.urls import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

    from gust_torch.artifacts.wandb_store import WandbStore

WANDB = "wandb"
DEFAULT_CACHE = Path("artifacts/cache")
DESCRIPTION = "artifact.json"
FORMAT_VERSION = 1
DIGITS = 16  # of the digest, in a folder's name

_S3 = ("s3", "s3a")
_S3_PART_BYTES = 16 << 20
_S3_MAX_PARTS = 9_000  # S3 takes 10,000
_CONNECT_TIMEOUT = 5  # seconds

# What an error's name and text mean, the first that fits, and what to do.
_MEANINGS = (
    ("specified bucket does not exist|NoSuchBucket", "no such bucket", "check the URL and AWS_ENDPOINT_URL"),
    ("FileNotFound", "no such file or folder", "check the URL and AWS_ENDPOINT_URL"),
    ("Credentials", "no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("NoRegion", "no region", "set AWS_DEFAULT_REGION"),
    ("Permission", "access denied", "check the credentials and the permissions"),
    ("Connect|Timeout", "cannot be reached", "check the network and AWS_ENDPOINT_URL"),
    ("", "failed", None),
)

Read = Callable[[Sequence[tuple[int, int]]], list[bytes]]


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
class RemoteFile:
    """A stored file, to be read; a ValueError says that it cannot be.

    Attributes:
        name: File name without folders, such as "burgers1d_subset_v1.tar.gz".
        size: Bytes; None where the store does not tell.
        download: Writes the whole file to a path, which may be incomplete after an error.
        read: Reads bytes start to stop, without stop, of each span, at the same time where the store can;
            None where it reads whole files only.
    """

    name: str
    size: int | None
    download: Callable[[Path], object]
    read: Read | None = None


def open_store(
    store: str = WANDB,
    *,
    project: str | None = None,
    entity: str | None = None,
    run_name: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
) -> "FsspecStore | WandbStore":
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
    if not is_url(store) or store.startswith("http"):
        raise ValueError(f"unknown store {redact(store)!r}; give wandb, file:///folder or s3://bucket/folder")
    return FsspecStore(store)


def open_reference(reference: str, *, cache_dir: Path = DEFAULT_CACHE) -> RemoteFile:
    """Open a stored file for reading.

    Args:
        reference: A URL, or a W&B artifact "entity/project/name:version".
        cache_dir: Folder below which W&B may keep its files.

    Raises:
        ValueError: There is no such file, it may not be read, or the store cannot be reached.
    """
    if not is_url(reference):
        from gust_torch.artifacts.wandb_store import open_artifact

        return open_artifact(expand_reference(reference), cache_dir)
    filesystem, path = _open(reference)
    with explained(reference):
        info = _open(reference, patient=False)[0].info(path)
        if info["type"] == "directory":
            raise ValueError(f"{reference} is a folder; name the file in it")
        name, size = posixpath.basename(path), info["size"]
        has_ranges = size is not None and _serves_last_byte(filesystem, path, size)

    def read(spans: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = (list(ends) for ends in zip(*spans, strict=True))
        with explained(reference):
            pieces: list[Any] = filesystem.cat_ranges([path] * len(spans), starts, stops)
            for error in (piece for piece in pieces if isinstance(piece, BaseException)):
                raise error
        if (came := sum(map(len, pieces))) != (wanted := sum(stops) - sum(starts)):
            raise ValueError(
                f"{reference}: {came} bytes came where {wanted} were asked for; the file was replaced "
                "meanwhile, or the server does not read ranges"
            )
        return pieces

    def download(target: Path) -> None:
        with explained(reference):
            filesystem.get_file(path, str(target), callback=_transfer(f"fetch {name}", size, most=size))

    return RemoteFile(name, size, download, read if has_ranges else None)


def _serves_last_byte(filesystem: "AbstractFileSystem", path: str, size: int) -> bool:
    """Try whether a web server reads ranges; the file of one that does not is not waited for."""
    if "http" not in filesystem.protocol:
        return True
    try:
        with filesystem.open(path, size=size, cache_type="none") as file:
            file.seek(size - 1)
            return len(file.read(1)) == 1
    except ValueError:  # so fsspec says that all of it came
        return False


class FsspecStore:
    """A place behind a URL that takes artifacts; ValueError where it does not."""

    def __init__(self, url: str) -> None:
        """Open the filesystem, which must be known and installed."""
        self._filesystem, _ = _open(url)
        self._url = url.rstrip("/") if url.partition("://")[2].strip("/") else url
        self._is_local, self._is_s3 = (url.partition("://")[0] in kind for kind in (LOCAL, _S3))

    def check(self, name: str, file: str) -> None:
        """Find out whether a file can be stored: begin to write one, give it up, and no reader sees it."""
        url = f"{self._url}/{name}/{file}"
        if problem := reference_problem(url):
            raise ValueError(f"the URL of the upload {problem}")
        if file == DESCRIPTION:
            raise ValueError(f"{file} is the name of the store's own file; rename yours")
        with explained(self._url):
            filesystem, path = _open(url, patient=False)
            if self._is_s3:
                bucket, key, _ = filesystem.split_path(path)
                place = {"Bucket": bucket, "Key": key}
                begun = filesystem.call_s3("create_multipart_upload", **place)
                filesystem.call_s3("abort_multipart_upload", **place, UploadId=begun["UploadId"])
                return
            trial = posixpath.join(posixpath.dirname(path), f".{uuid.uuid4().hex[:8]}.part")
            filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
            filesystem.pipe_file(trial, b"0")
            filesystem.rm_file(trial)

    def put(self, upload: Upload) -> list[str]:
        """Store a file; readers see all of it or nothing.

        Returns:
            Lines to print: what was done, and last the reference that the registry's `artifact:` takes.

        Raises:
            ValueError: It failed, or the store has the same bytes with another type or metadata.
        """
        folder = f"{self._url}/{upload.name}/{upload.sha256[:DIGITS]}"
        described = {
            "format_version": FORMAT_VERSION,
            "name": upload.name,
            "type": upload.type,
            "file": upload.path.name,
            "size": upload.path.stat().st_size,
            "sha256": upload.sha256,
            "metadata": json.loads(
                json.dumps(upload.metadata)
            ),  # tuples become lists, as a reader finds them
            "provenance": provenance(),
        }
        if stored := self._stored(folder):
            if any(stored[key] != described[key] for key in ("sha256", "type", "metadata")):
                there = f"{stored['type']} {json.dumps(stored['metadata'], sort_keys=True)}"
                raise ValueError(
                    f"{folder} has these bytes already, as {there}; upload them under another name, or "
                    f"remove {folder}/{DESCRIPTION} to describe them anew"
                )
            note = f"{folder} has these bytes already; nothing was uploaded"
            return [note, f"{folder}/{stored['file']}"]
        url = f"{folder}/{upload.path.name}"
        with explained(url):
            self._send(upload, self._path(url))
            kept = self._filesystem.size(self._path(url))
        if kept != described["size"]:
            raise ValueError(f"{url} has {kept} bytes, not {described['size']}; remove it and upload again")
        text = json.dumps(described, indent=2, sort_keys=True).encode() + b"\n"
        path = self._path(f"{folder}/{DESCRIPTION}")
        with explained(folder):
            if self._is_local:
                with written_aside(Path(path)) as file:
                    file.write(text)
            else:
                self._filesystem.pipe_file(path, text)
        return [url]

    def _path(self, url: str) -> str:
        return _path_of(self._filesystem, url)

    def _send(self, upload: Upload, path: str) -> None:
        """Write the file, whole or not at all."""
        if self._is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with WriterLock(Path(path)), path_aside(Path(path)) as partial:
                shutil.copyfile(upload.path, partial)
                upload.check_unchanged()
            return
        size = upload.path.stat().st_size
        callback = _transfer(f"upload {upload.path.name}", size)
        options: dict[str, Any] = {"callback": callback}
        if self._is_s3:
            options |= {"chunksize": max(_S3_PART_BYTES, size // _S3_MAX_PARTS), "max_concurrency": 4}
        # In a thread, since Ctrl-C does not reach fsspec's: the next part then fails, and with it the upload.
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(self._filesystem.put_file, str(upload.path), path, **options).result()
            except BaseException:
                callback.stop = True
                raise
        try:
            upload.check_unchanged()
        except ValueError:
            self._filesystem.rm_file(path)
            raise

    def _stored(self, folder: str) -> dict[str, Any]:
        """Read the description of what a folder holds; {} where it holds nothing, or not all of it."""
        url = f"{folder}/{DESCRIPTION}"
        with explained(url), contextlib.suppress(FileNotFoundError):
            text = self._filesystem.cat_file(self._path(url))
            try:
                stored: dict[str, Any] = json.loads(text)
                name, size, *_ = (stored[key] for key in ("file", "size", "type", "sha256", "metadata"))
                is_damaged = posixpath.basename(name) != name or name in ("", ".", "..", DESCRIPTION)
            except (ValueError, TypeError, LookupError, RecursionError):
                is_damaged = True
            if is_damaged:
                raise ValueError(f"{url} is damaged; remove it and upload again")
            if self._filesystem.size(self._path(f"{folder}/{name}")) == size:
                return stored
        return {}


def _open(url: str, *, patient: bool = True) -> "tuple[AbstractFileSystem, str]":
    """Open the filesystem of a URL, and name its path there; credentials come from the environment.

    Args:
        url: Of a file or folder.
        patient: Whether to try again for minutes; no where someone waits to hear whether something is there.

    Raises:
        ValueError: The URL is malformed, or its scheme is unknown or its package is not installed.
    """
    if problem := url_problem(url):
        raise ValueError(f"the URL {problem}")
    import fsspec

    protocol = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in _S3:
        retries = {"total_max_attempts": 3 if patient else 2, "mode": "standard"}
        timeouts = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": 60 if patient else 10}
        options["config_kwargs"] = {**timeouts, "retries": retries}
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        remedy = "pip install 'gust_torch[s3]'" if protocol in _S3 else f"{error}; use file:// or s3://"
        raise ValueError(f"{url}: {protocol}:// is unknown or not installed; {remedy}") from error
    with explained(url):
        filesystem = kind(**options)
    if protocol in _S3:
        filesystem.retries = 3 if patient else 1  # s3fs's own, on top
    return filesystem, _path_of(filesystem, url)


def _path_of(filesystem: "AbstractFileSystem", url: str) -> str:
    """Give what a filesystem calls a URL; on this machine "%20" is a space, as `Path.as_uri` writes it."""
    path = str(filesystem._strip_protocol(url))
    return unquote(path) if url.partition("://")[0] in LOCAL else path


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


def _client_errors() -> tuple[type[Exception], ...]:
    """List what the clients that are loaded raise."""
    names = ("BotoCoreError", "ClientError", "HTTPError")
    modules = [sys.modules.get(name) for name in ("botocore.exceptions", "aiohttp", "httpx")]
    found = (getattr(module, name) for module in modules for name in names if hasattr(module, name))
    return (OSError, *found)


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what a filesystem raises about a URL into a ValueError of one line, with a remedy."""
    try:
        yield
    except _client_errors() as error:
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, OSError):
            error = error.__cause__  # so fsspec says of a web server that cannot be reached
        # It may quote AWS_ENDPOINT_URL, which may hold a login.
        text = redact(" ".join(str(getattr(error, "strerror", None) or error).split()))
        name = "/".join(kind.__name__ for kind in type(error).__mro__)
        what, remedy = next(rest for word, *rest in _MEANINGS if re.search(word, f"{name}: {text}"))
        remedy = remedy or REMEDIES.get(getattr(error, "errno", 0), "check the URL, the network and the disk")
        raise ValueError(f"{url}: {what} ({text}); {remedy}") from error
