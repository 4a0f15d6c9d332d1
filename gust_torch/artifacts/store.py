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

from gust_torch.artifacts.reference import LOCAL, expand_reference, reference_problem, url_problem
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
_BLOCK_BYTES = 1 << 20

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
    """A file to be stored as an artifact of some name and type; `stamp` is from before it was hashed."""

    name: str
    type: str
    path: Path
    metadata: Mapping[str, object]
    sha256: str
    stamp: tuple[int, ...]

    def check_unchanged(self) -> None:
        """Raise ValueError where the file is no longer the one that was hashed."""
        if stamp(self.path) != self.stamp:
            raise ValueError(f"{self.path} changed while it was uploaded; upload it again")


def stamp(path: Path) -> tuple[int, ...]:
    """Give what changes when a file is rewritten or replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@dataclass(frozen=True)
class RemoteFile:
    """A stored file, to be read; a ValueError says that it cannot be.

    Attributes:
        name: File name without folders.
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
    """Open a store for uploads: "wandb" (the only one with the other settings), or the URL of a folder.

    A ValueError says that it is unknown, or that its settings or its login are missing.
    """
    if store == WANDB:
        from gust_torch.artifacts.wandb_store import WandbStore

        return WandbStore(project, entity or None, run_name, cache_dir)
    if "://" not in store or store.startswith("http"):
        raise ValueError(f"unknown store {redact(store)!r}; give wandb, file:///folder or s3://bucket/folder")
    return FsspecStore(store)


def open_reference(reference: str, *, cache_dir: Path = DEFAULT_CACHE) -> RemoteFile:
    """Open a stored file for reading: a URL, or a W&B artifact "entity/project/name:version".

    A ValueError says that there is none, or that it may not or cannot be read.
    """
    if "://" not in reference:
        from gust_torch.artifacts.wandb_store import open_artifact

        return open_artifact(expand_reference(reference), cache_dir)
    filesystem, path = _open(reference)
    with explained(reference):
        info = _open(reference, patient=False)[0].info(path)
        if info["type"] == "directory":
            raise ValueError(f"{reference} is a folder; name the file in it")
        size: int | None = info["size"]
        has_ranges = size is not None and _serves_last_byte(filesystem, path, size)

    def read(spans: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = (list(ends) for ends in zip(*spans, strict=True))
        with explained(reference):
            pieces: list[Any] = filesystem.cat_ranges([path] * len(spans), starts, stops)
            for error in (piece for piece in pieces if isinstance(piece, BaseException)):
                raise error
        if (came := sum(map(len, pieces))) != (wanted := sum(stops) - sum(starts)):
            raise ValueError(f"{reference}: {came} bytes came, not {wanted}; was it replaced meanwhile?")
        return pieces

    def download(target: Path) -> None:
        with explained(reference), filesystem.open(path, block_size=0) as source, target.open("wb") as file:
            while block := source.read(_BLOCK_BYTES):
                file.write(block)
                if size is not None and file.tell() > size:
                    raise ValueError(f"{reference}: more than its {size} bytes came; is the server right?")

    return RemoteFile(posixpath.basename(path), size, download, read if has_ranges else None)


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
        filesystem, path = _open(url, patient=False)
        with explained(self._url):
            if self._is_s3:
                bucket, key, _ = filesystem.split_path(path)
                place = {"Bucket": bucket, "Key": key}
                begun = filesystem.call_s3("create_multipart_upload", **place)
                filesystem.call_s3("abort_multipart_upload", **place, UploadId=begun["UploadId"])
                return
            folder = posixpath.dirname(path)
            trial = f"{folder}/.{uuid.uuid4().hex[:8]}.part"
            filesystem.makedirs(folder, exist_ok=True)
            filesystem.pipe_file(trial, b"0")
            filesystem.rm_file(trial)

    def put(self, upload: Upload) -> list[str]:
        """Store a file, so that readers see all of it or nothing; refuse the same bytes with other metadata.

        Gives lines to print: what was done, and last the reference that the registry's `artifact:` takes.
        """
        described = {
            "format_version": FORMAT_VERSION,
            "name": upload.name,
            "type": upload.type,
            "file": upload.path.name,
            "size": upload.path.stat().st_size,
            "sha256": upload.sha256,
            "metadata": json.loads(json.dumps(upload.metadata)),  # with lists for tuples, as it is read back
            "provenance": provenance(),
        }
        folder = f"{self._url}/{upload.name}/{upload.sha256[:DIGITS]}"
        url = f"{folder}/{upload.path.name}"
        with explained(folder):
            if stored := self._stored(folder):
                note = f"{folder} has these bytes already"
                same = ("sha256", "type", "metadata")
                if there := {key: stored.get(key) for key in same if stored.get(key) != described[key]}:
                    remedy = f"upload them under another name, or remove {DESCRIPTION} to describe them anew"
                    raise ValueError(f"{note}, as {json.dumps(there)}; {remedy}")
                return [f"{note}; nothing was uploaded", f"{folder}/{stored['file']}"]
            path = _path_of(self._filesystem, url)
            self._send(upload, path)
            if (kept := self._filesystem.size(path)) != described["size"]:
                raise ValueError(f"{url} has {kept} bytes instead of {described['size']}; upload it again")
            description = _path_of(self._filesystem, f"{folder}/{DESCRIPTION}")
            text = json.dumps(described, indent=2, sort_keys=True).encode() + b"\n"
            if self._is_local:
                with written_aside(Path(description)) as file:
                    file.write(text)
            else:
                self._filesystem.pipe_file(description, text)
        return [url]

    def _send(self, upload: Upload, path: str) -> None:
        """Write the file, whole or not at all."""
        if self._is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with WriterLock(Path(path)), path_aside(Path(path)) as partial:
                shutil.copyfile(upload.path, partial)
                upload.check_unchanged()
            return
        callback = _progress_of_upload(upload.path)
        options: dict[str, Any] = {"callback": callback}
        if self._is_s3:
            part = max(_S3_PART_BYTES, upload.path.stat().st_size // _S3_MAX_PARTS)
            options |= {"chunksize": part, "max_concurrency": 4}
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
        files = self._filesystem
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, LookupError, RecursionError):
            stored: dict[str, Any] = json.loads(files.cat_file(_path_of(files, f"{folder}/{DESCRIPTION}")))
            if files.size(_path_of(files, f"{folder}/{Path(stored['file']).name}")) == stored["size"]:
                return stored
        return {}


def _open(url: str, *, patient: bool = True) -> "tuple[AbstractFileSystem, str]":
    """Open the filesystem of a URL, and name its path there; credentials come from the environment.

    It tries again for minutes if it is `patient`: not where someone waits to hear whether a server answers.
    """
    if problem := url_problem(url):
        raise ValueError(f"the URL {problem}")
    import fsspec

    protocol = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in _S3:
        retries = {"total_max_attempts": 2, "mode": "standard"}
        options["config_kwargs"] = {
            "connect_timeout": 5,
            "read_timeout": 60 if patient else 10,
            "retries": retries,
        }
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


def _progress_of_upload(path: Path) -> "Callback":
    """Show an upload on a terminal, and end it when `stop` is set."""
    from fsspec.callbacks import TqdmCallback

    class Stoppable(TqdmCallback):
        stop = False

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.stop:
                raise OSError("stopped")

    bar = {"desc": f"upload {path.name}", "leave": False, "disable": None, "unit": "B", "unit_scale": True}
    return Stoppable(size=path.stat().st_size, tqdm_kwargs=bar)


def _client_errors() -> tuple[type[Exception], ...]:
    """List what the clients that are loaded raise."""
    names = ("BotoCoreError", "ClientError", "HTTPError")
    modules = [sys.modules.get(name) for name in ("botocore.exceptions", "aiohttp", "httpx")]
    return (OSError, *(getattr(item, name) for item in modules for name in names if hasattr(item, name)))


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
