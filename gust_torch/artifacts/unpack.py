"""Unpack a dataset's tarball into an empty folder, and nothing outside it, whatever the tarball says.

`tarfile` only parses headers here. Accepted are regular files and folders with the names of the dataset; they
are created new, with this process's own permissions and no more bytes than the registry promises.
"""

import gzip
import itertools
import tarfile
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

from gust_torch.artifacts.download import Count
from solvers.common.files import naming
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

_GZIP_ERRORS: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
if isal_zlib is not None:
    _GZIP_ERRORS = (*_GZIP_ERRORS, isal_zlib.error)  # type: ignore[arg-type]
# What tarfile raises at headers that no tar writes; found by feeding it damaged ones.
_HEADER_ERRORS = (
    tarfile.TarError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip

Seen = dict[str, tuple[str, bool]]  # a name as the least able file system sees it -> name, whether a folder


def unpack(tarball: Path, folder: Path, *, members: Collection[str], unpacked: int, count: Count) -> None:
    """Unpack a .tar.gz file, also of several gzip members in a row, into an empty folder.

    `members` are split files, and split folders that end in .zarr; `unpacked` counts the bytes of all files,
    `count` is told of those that were written. After an error the folder holds a part.

    Raises:
        ValueError: The tarball is damaged or holds anything but these members.
        OSError: The folder cannot be written to.
    """
    # isal decompresses ahead in a thread.
    options = {"block_size": _BLOCK_BYTES} if igzip_threaded else {}
    try:
        with (igzip_threaded or gzip).open(tarball, "rb", **options) as file:
            _unpack(_Stream(file), folder, members, unpacked, count)
    except (ValueError, *_GZIP_ERRORS) as error:  # type: ignore[misc]
        raise ValueError(f"{tarball} was not unpacked: {error}; ask for a new package of it") from error


class _Stream:
    """Decompressed bytes, as much of a file object as `tarfile` needs to read headers.

    It only goes forwards, and refuses the long reads and skips of a hostile header. `header` was read last.
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


def _unpack(stream: _Stream, folder: Path, members: Collection[str], unpacked: int, count: Count) -> None:
    seen: Seen = {}
    total = 0
    for number, member in enumerate(_headers(stream), 1):
        name, is_folder = member.name, member.type == tarfile.DIRTYPE
        is_sparse = member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers)
        total += 0 if is_folder else member.size
        try:
            if is_sparse or member.size < 0 or not (is_folder or member.type in tarfile.REGULAR_TYPES[:2]):
                raise ValueError("it is a link, a device or the like, not a plain file or folder")
            note_name(seen, name, is_folder=is_folder, expected=members)
            if number > MAX_MEMBERS or total > unpacked:
                raise ValueError(f"it is beyond the {unpacked} bytes, or {MAX_MEMBERS} members, allowed")
            _write(stream, member, folder.joinpath(*name.split("/")), count)
        except ValueError as error:
            raise ValueError(f"member {name[:100]!a}: {error}") from error
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
    except _HEADER_ERRORS as error:
        raise ValueError(f"no tar file, or a damaged one ({error})") from error


def _write(stream: _Stream, member: tarfile.TarInfo, target: Path, count: Count) -> None:
    """Write one new file or folder."""
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        count(0)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target), target.open("xb") as file:  # follows no link
        for block in stream.take(member.size):
            file.write(block)
            count(len(block))
        if file.tell() < member.size:
            raise ValueError("it is cut short")


def note_name(seen: Seen, name: str, *, is_folder: bool, expected: Collection[str]) -> None:
    """Note the name of a tarball's member, and the folders above it, among those `seen`.

    A ValueError says that it points out of the folder, means another file on another operating system,
    comes twice, or is none of the `expected` split files and of what lies below split folders (.zarr).
    """
    parts = name.split("/")
    if (
        not name.isprintable()
        or any(character in "\\:" or "\ud800" <= character <= "\udfff" for character in name)
        or any(part in ("", ".", "..") or len(part.encode()) > _MAX_PART_BYTES for part in parts)
        or len(name.encode()) > _MAX_NAME_BYTES
    ):
        raise ValueError("its name is no short relative path of printable text without '..', '\\' and ':'")
    if parts[0] not in expected or (is_folder or len(parts) > 1) != parts[0].endswith(GRAPHS):
        raise ValueError(f"it is none of {', '.join(expected)}, of which {GRAPHS} are folders, others files")
    for end in range(len(parts), 0, -1):  # the folders above a member need no members of their own
        path = "/".join(parts[:end]), is_folder or end < len(parts)
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path[0]).casefold())
        if (known := seen.setdefault(folded, path)) is not path:
            if known != path or not path[1]:
                raise ValueError(f"it comes twice, or differs from {known[0]!r} only in case or Unicode form")
            return
