"""Keeps artifacts behind an fsspec URL, addressed by their content.

<store>/<name>/<first 16 digits of sha256>/<file>, and beside it artifact.json, which is written last: a
folder with it holds the whole file. Nothing is ever replaced by something else.
"""

import hashlib
import json
import os
from pathlib import Path

from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.stores.contract import Reference, Upload
from gust_torch.artifacts.stores.filesystem import explained, no_bucket, open_filesystem
from gust_torch.artifacts.stores.fsspec_file import FsspecFile
from gust_torch.artifacts.stores.fsspec_write import probe, write_whole
from gust_torch.artifacts.stores.progress import transfer_bar
from gust_torch.artifacts.stores.urls import LOCAL, StoreUrl, parse_url
from solvers.common.provenance import provenance

FORMAT_VERSION = 1
DESCRIPTION = "artifact.json"
DIGITS = 16  # of the digest, in a folder's name

_CHUNK = 4 * 2**20


class FsspecStore:
    """A `Store` behind a URL."""

    def __init__(self, url: StoreUrl) -> None:
        """Opens the filesystem.

        Raises:
            ValueError: The scheme is unknown, not installed, or cannot be written to.
        """
        if url.protocol in ("http", "https"):
            raise ValueError(
                f"{url.text}: a web server takes no uploads; use file:///folder or s3://bucket/folder"
            )
        self._url = url
        self._filesystem = open_filesystem(url)

    def check(self, name: str, file: str) -> None:
        """Begins to write a file and gives it up again, so that no reader sees it.

        Raises:
            ValueError: The URL is none that the registry takes, the bucket is missing, or the store cannot be
                written to or reached.
        """
        url = self._url.join(name, file)
        if (problem := reference_problem(url)) is not None:
            raise ValueError(f"the URL of the upload {problem}")
        if self._url.protocol in LOCAL:
            _check_folder(Path(self._path(url)).parent)
            return
        with explained(self._url.text):
            probe(self._filesystem, self._url.protocol, self._path(url))

    def put(self, upload: Upload) -> Reference:
        """Stores a file; a second upload of the same bytes does nothing.

        Raises:
            ValueError: The store cannot be written to, the file is not the one that was hashed, or its bytes
                are stored with another type or other metadata.
        """
        folder = self._url.join(upload.name, upload.sha256[:DIGITS])
        stored = self._stored_url(folder, upload)
        if stored is not None:
            note = f"{folder} has these bytes already; nothing was uploaded"
            return Reference(stored, stored, (note,))
        url = f"{folder}/{upload.path.name}"
        size = self._copy(upload, url)
        description = {
            "format_version": FORMAT_VERSION,
            "name": upload.name,
            "type": upload.type,
            "file": upload.path.name,
            "size": size,
            "sha256": upload.sha256,
            "metadata": upload.metadata,
            "provenance": provenance(),
        }
        data = json.dumps(description, indent=2, sort_keys=True).encode() + b"\n"
        with (
            explained(folder),
            write_whole(
                self._filesystem, self._url.protocol, self._path(f"{folder}/{DESCRIPTION}"), 1
            ) as file,
        ):
            file.write(data)
        return Reference(url, url)

    def open(self, reference: str) -> FsspecFile:
        """Finds a stored file by its URL.

        Raises:
            ValueError: There is no such file, or the store cannot be reached.
        """
        return FsspecFile(parse_url(reference))

    def _path(self, url: str) -> str:
        """What the filesystem calls a URL."""
        return str(self._filesystem._strip_protocol(url))

    def _stored_url(self, folder: str, upload: Upload) -> str | None:
        """URL of the same bytes from an earlier upload; None where there is none, or it is incomplete.

        Raises:
            ValueError: They are stored as something else.
        """
        url = f"{folder}/{DESCRIPTION}"
        with explained(folder):
            try:
                text = self._filesystem.cat_file(self._path(url))
            except FileNotFoundError as error:
                if no_bucket(error):
                    raise
                return None
        try:
            stored = json.loads(text)
            same = (stored["sha256"], stored["type"], stored["metadata"])
            file = f"{folder}/{os.path.basename(stored['file'])}"
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{url} is damaged; remove it and upload again") from error
        if stored["sha256"] != upload.sha256:
            raise ValueError(
                f"{folder} holds other bytes with the same first {DIGITS} digits; use another name"
            )
        wanted = (upload.sha256, upload.type, json.loads(json.dumps(upload.metadata)))
        if same != wanted:
            raise ValueError(
                f"{folder} has these bytes already, as {_words(*same[1:])}, not {_words(*wanted[1:])}; "
                f"upload them under another name, or remove {url} to describe them anew"
            )
        with explained(file):
            whole = self._filesystem.exists(self._path(file)) and (
                self._filesystem.size(self._path(file)) == stored["size"]
            )
        return file if whole else None

    def _copy(self, upload: Upload, url: str) -> int:
        """Writes the file; returns its size in bytes.

        Raises:
            ValueError: The bytes read are not those of the digest, or the store kept another number of them.
        """
        digest, path = hashlib.sha256(), self._path(url)
        size = upload.path.stat().st_size
        with (
            upload.path.open("rb") as source,
            transfer_bar(size, f"upload {upload.path.name}") as bar,
            explained(url),
            write_whole(self._filesystem, self._url.protocol, path, size) as target,
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
                bar.update(len(chunk))
            if digest.hexdigest() != upload.sha256:
                raise ValueError(
                    f"{upload.path} changed while it was uploaded; nothing was stored, upload it again"
                )
        with explained(url):
            kept = self._filesystem.size(path)
        if kept != size:
            raise ValueError(f"{url} has {kept} bytes where {size} were written; remove it and upload again")
        return size


def _words(kind: str, metadata: object) -> str:
    """Type and metadata for a message."""
    return f"{kind} {json.dumps(metadata, sort_keys=True)}"


def _check_folder(folder: Path) -> None:
    """Raises ValueError unless a folder on this machine exists and can be written to, or can be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file where a folder is needed; choose another store")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} cannot be written to; choose a store that you may write to")
