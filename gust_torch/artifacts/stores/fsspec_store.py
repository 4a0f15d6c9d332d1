"""Keeps artifacts behind an fsspec URL, addressed by their content.

<store>/<name>/<first 16 digits of sha256>/<file>, and beside it artifact.json, which is written last: a
folder with it holds the whole file. Nothing is ever replaced by something else.
"""

import hashlib
import os
from pathlib import Path

from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.stores import description
from gust_torch.artifacts.stores.contract import Reference, Upload
from gust_torch.artifacts.stores.description import Description
from gust_torch.artifacts.stores.filesystem import QUESTION, explained, no_bucket, open_filesystem
from gust_torch.artifacts.stores.fsspec_write import probe, write_whole
from gust_torch.artifacts.stores.progress import transfer_bar
from gust_torch.artifacts.stores.urls import LOCAL, StoreUrl, path_of

DIGITS = 16  # of the digest, in a folder's name

_CHUNK = 4 * 2**20


class FsspecStore:
    """A `Store` behind a URL."""

    def __init__(self, url: StoreUrl) -> None:
        """Open the filesystem.

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
        if file == description.FILE_NAME:
            raise ValueError(f"{file} is the name of the store's own file; rename yours")
        if self._url.protocol in LOCAL:
            _check_folder(Path(self._path(url)).parent)
            return
        with explained(self._url.text):
            probe(open_filesystem(self._url, QUESTION), self._url.protocol, self._path(url))

    def put(self, upload: Upload) -> Reference:
        """Store a file; a second upload of the same bytes does nothing.

        Raises:
            ValueError: The store cannot be written to, the file is not the one that was hashed, or its bytes
                are stored with another type or other metadata.
        """
        folder = self._url.join(upload.name, upload.sha256[:DIGITS])
        described = Description.of(upload, upload.path.stat().st_size)
        stored = self._stored(folder)
        if stored is not None:
            _check_same(stored, described, folder)
            url = f"{folder}/{stored.file}"
            note = f"{folder} has these bytes already; nothing was uploaded"
            return Reference(url, url, (note,))
        url = f"{folder}/{upload.path.name}"
        self._copy(upload, url, described.size)
        text = described.to_json()
        path = self._path(f"{folder}/{description.FILE_NAME}")
        with (
            explained(folder),
            write_whole(self._filesystem, self._url.protocol, path, len(text)) as file,
        ):
            file.write(text)
        return Reference(url, url)

    def _path(self, url: str) -> str:
        """Return what the filesystem calls a URL."""
        return path_of(self._filesystem, url)

    def _stored(self, folder: str) -> Description | None:
        """Return the description of what a folder holds; None where it holds nothing, or not all of it.

        Raises:
            ValueError: The description is damaged, or the store cannot be read.
        """
        url = f"{folder}/{description.FILE_NAME}"
        text = self._read(url)
        if text is None:
            return None
        try:
            stored = Description.from_json(text)
        except ValueError as error:
            raise ValueError(f"{url} is damaged ({error}); remove it and upload again") from error
        size = self._size(f"{folder}/{stored.file}")
        return stored if size == stored.size else None

    def _read(self, url: str) -> bytes | None:
        """Bytes of a small file; None where there is none."""
        with explained(url):
            try:
                return bytes(self._filesystem.cat_file(self._path(url)))
            except FileNotFoundError as error:
                if no_bucket(error):
                    raise
                return None

    def _size(self, url: str) -> int | None:
        """Size of a file in bytes; None where there is none."""
        with explained(url):
            try:
                return int(self._filesystem.size(self._path(url)))
            except FileNotFoundError:
                return None

    def _copy(self, upload: Upload, url: str, size: int) -> None:
        """Write the file.

        Raises:
            ValueError: The bytes read are not those of the digest, or the store kept another number of them.
        """
        digest, path = hashlib.sha256(), self._path(url)
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
        if (kept := self._size(url)) != size:
            raise ValueError(f"{url} has {kept} bytes where {size} were written; remove it and upload again")


def _check_same(stored: Description, wanted: Description, folder: str) -> None:
    """Raise ValueError where a folder holds something else, or the same bytes described differently."""
    if stored.sha256 != wanted.sha256:
        raise ValueError(f"{folder} holds other bytes with the same first {DIGITS} digits; use another name")
    if (stored.type, stored.metadata) != (wanted.type, wanted.metadata):
        raise ValueError(
            f"{folder} has these bytes already, as {stored.words()}, not {wanted.words()}; upload them under "
            f"another name, or remove {folder}/{description.FILE_NAME} to describe them anew"
        )


def _check_folder(folder: Path) -> None:
    """Raise ValueError unless a folder on this machine exists and can be written to, or can be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file where a folder is needed; choose another store")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} cannot be written to; choose a store that you may write to")
