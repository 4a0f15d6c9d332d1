"""Unpack a dataset's tarball into an empty folder, and nothing outside it, whatever the tarball says.

`tarfile` only parses headers here. What is accepted, where it goes and how it is opened is decided in this
module: regular files and folders with the names of the dataset, created new, with this process's own
permissions, and no more bytes than the registry promises.
"""

import gzip
import itertools
import tarfile
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

from gust_torch.artifacts.download import Job, naming
from solvers.common.splits import GRAPHS

try:
    from isal import igzip_threaded, isal_zlib
except ImportError:  # no wheel for this platform
    igzip_threaded = isal_zlib = None  # type: ignore[assignment]

MAX_MEMBERS = 10_000_000

_BLOCK_BYTES = 1 << 20
# A name of 1024 bytes needs far less. tarfile nests headers and searches them in quadratic time: of some
# megabytes they would cost a gigabyte of memory and hours.
_MAX_HEADER_BYTES = 16 << 10
_MAX_PADDING = 16 << 20  # zeros behind the last member; GNU tar fills up its last record of 10 KiB
_MAX_PART_BYTES, _MAX_NAME_BYTES = 255, 1024  # of a component, on every common file system; of a path

# What tarfile raises at headers that no tar writes; found by feeding it damaged ones.
_HEADER_ERRORS = (
    tarfile.TarError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip
_GZIP_ERRORS: tuple[type[Exception], ...] = (ValueError, gzip.BadGzipFile, EOFError, zlib.error)
if isal_zlib is not None:
    _GZIP_ERRORS = (*_GZIP_ERRORS, isal_zlib.error)  # type: ignore[arg-type]

Seen = dict[str, tuple[str, bool]]  # a name as the least able file system sees it -> name, whether a folder


def unpack(tarball: Path, folder: Path, *, members: Collection[str], unpacked: int, job: Job) -> None:
    """Unpack all members.

    Args:
        tarball: A .tar.gz file, also of several gzip members in a row.
        folder: An empty folder that nobody else uses; after an error it holds a part.
        members: Split files, and split folders that end in .zarr.
        unpacked: Bytes of all files together.
        job: Progress and stop.

    Raises:
        ValueError: The tarball is damaged or holds anything but these members.
        OSError: The folder cannot be written to.
    """
    try:
        with _open_gzip(tarball) as file:
            _unpack(_Stream(file), folder, members, unpacked, job)
    except _GZIP_ERRORS as error:
        what = str(error) if isinstance(error, ValueError) else f"damaged or no gzip ({error})"
        raise ValueError(
            f"{tarball} was not unpacked: {what}; ask for a new package of the dataset"
        ) from error


def _open_gzip(path: Path) -> IO[bytes]:
    """Open a gzip file for reading, decompressed ahead in a thread where isal is there."""
    if igzip_threaded is None:
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return cast("IO[bytes]", igzip_threaded.open(path, "rb", block_size=_BLOCK_BYTES))


class _Stream:
    """Decompressed bytes, as much of a file object as `tarfile` needs to read headers.

    It only goes forwards, and refuses the long reads and skips that a hostile header asks for. `header` is
    what `read` returned last.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position, self.header = file, 0, b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError("a header is too long")
        self.header = b"".join(self.take(size))
        return self.header

    def seek(self, position: int) -> None:
        self.read(position - self._position)

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in blocks; ends early where the file does."""
        while size > 0 and (block := self._file.read(min(size, _BLOCK_BYTES))):
            self._position += len(block)
            size -= len(block)
            yield block


def _unpack(stream: _Stream, folder: Path, members: Collection[str], unpacked: int, job: Job) -> None:
    seen: Seen = {}
    total = 0
    for count, member in enumerate(_headers(stream)):
        name, is_folder = member.name, member.type == tarfile.DIRTYPE
        shown = ascii(name if len(name) <= 100 else f"{name[:100]}...")
        is_sparse = member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers)
        if (
            is_sparse
            or member.size < 0
            or not (is_folder or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE))
        ):
            raise ValueError(f"member {shown} is a link, a device or the like, not a plain file or folder")
        try:
            note_name(seen, name, is_folder=is_folder, expected=members)
        except ValueError as error:
            raise ValueError(f"member {shown}: {error}") from error
        total += 0 if is_folder else member.size
        if count == MAX_MEMBERS or total > unpacked:
            raise ValueError(
                f"it has more than {MAX_MEMBERS} members, or the {unpacked} bytes of the registry"
            )
        target = folder.joinpath(*name.split("/"))
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            job.count(0)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        left = member.size
        with naming(target), target.open("xb", buffering=0) as file:  # follows no link
            for block in stream.take(left):
                left -= len(block)
                job.count(len(block))
                view = memoryview(block)
                while len(view):
                    view = view[file.write(view) :]
        if left:
            raise ValueError(f"member {shown} is cut short")
    rest = itertools.chain([stream.header], stream.take(_MAX_PADDING))
    if any(block.strip(b"\0") for block in rest) or list(stream.take(1)):
        raise ValueError("something follows behind its last member")
    missing = [name for name in members if (name, name.endswith(GRAPHS)) not in seen.values()]
    if missing or total != unpacked:
        lacks = f", without {', '.join(missing)}" if missing else ""
        raise ValueError(f"its files have {total} bytes{lacks}; the registry says {unpacked}")


def _headers(stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of the tarball; the stream then stands before the member's bytes."""
    try:
        tar = tarfile.TarFile(fileobj=cast("tarfile._Fileobj", stream), mode="r", encoding="utf-8")
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a store may have millions
            yield member
    except _GZIP_ERRORS:
        raise
    except _HEADER_ERRORS as error:
        raise ValueError(f"no tar file, or a damaged one ({error})") from error


def note_name(seen: Seen, name: str, *, is_folder: bool, expected: Collection[str]) -> None:
    """Note the name of a tarball's member; a ValueError says why it may not have it.

    It may not point out of the folder, mean another file on another operating system, or come twice.

    Args:
        seen: Names before it; this one and the folders above it are added.
        name: Of the member.
        is_folder: Whether it is a folder.
        expected: Split files, and split folders that end in .zarr.
    """
    parts = name.split("/")
    if (
        not name.isprintable()
        or any(character in "\\:" or "\ud800" <= character <= "\udfff" for character in name)
        or any(part in ("", ".", "..") or len(part.encode()) > _MAX_PART_BYTES for part in parts)
        or len(name.encode()) > _MAX_NAME_BYTES
    ):
        raise ValueError(
            f"its name is no relative path of printable characters without '..', '\\' and ':', of at most "
            f"{_MAX_PART_BYTES} bytes a part and {_MAX_NAME_BYTES} in all"
        )
    if parts[0] not in expected or (is_folder or len(parts) > 1) != parts[0].endswith(GRAPHS):
        raise ValueError(f"it is none of {', '.join(expected)}, of which {GRAPHS} are folders, others files")
    for end in range(1, len(parts) + 1):  # the folders above a member need no members of their own
        path = "/".join(parts[:end]), is_folder or end < len(parts)
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path[0]).casefold())
        if folded in seen and (seen[folded] != path or not path[1]):
            raise ValueError(
                f"it comes twice, or differs from {seen[folded][0]!r} only in case or Unicode form"
            )
        seen[folded] = path
