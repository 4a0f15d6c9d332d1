"""Unpacks a dataset's tarball into an empty folder, and nothing outside it, whatever the tarball says.

`tarfile` only parses headers here. What is a file or a folder, what it is called, where it goes and how it is
opened is decided in this module: regular files and folders with the names of the dataset, created new, with
this process's own permissions, and no more bytes than the registry promises.
"""

import gzip
import itertools
import os
import tarfile
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

from gust_torch.artifacts.download import Job
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
_MAX_PART_BYTES = 255  # of one component of a name, on every common file system
_MAX_NAME_BYTES = 1024

# What tarfile raises at headers that no tar writes; found by feeding it damaged ones.
_HEADER_ERRORS = (
    tarfile.TarError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip
_GZIP_ERRORS: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
if isal_zlib is not None:
    _GZIP_ERRORS = (*_GZIP_ERRORS, isal_zlib.error)  # type: ignore[arg-type]


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
            _unpack(_Stream(file), folder, MemberNames(members), unpacked, job)
    except _GZIP_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{tarball} was not unpacked: damaged or no gzip ({reason}); {_REMEDY}") from error
    except ValueError as error:
        raise ValueError(f"{tarball} was not unpacked: {error}; {_REMEDY}") from error


_REMEDY = "ask for a new package of the dataset"


def _open_gzip(path: Path) -> IO[bytes]:
    """Open a gzip file for reading, decompressed ahead in a thread where isal is there."""
    if igzip_threaded is None:
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return cast("IO[bytes]", igzip_threaded.open(path, "rb", block_size=_BLOCK_BYTES))


class _Stream:
    """Decompressed bytes, as much of a file object as `tarfile` needs to read headers.

    It only goes forwards, and refuses the long reads and skips that a hostile header asks for.

    Attributes:
        header: What `read` returned last.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position, self.header = file, 0, b""

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def read(self, size: int) -> bytes:
        """Give the next `size` bytes, fewer at the end."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError("a header is too long")
        self.header = b"".join(self.take(size))
        return self.header

    def seek(self, position: int) -> None:
        """Skip forwards, over no more than a header may have."""
        self.read(position - self._position)

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in blocks; ends early where the file does."""
        while size > 0 and (block := self._file.read(min(size, _BLOCK_BYTES))):
            self._position += len(block)
            size -= len(block)
            yield block


def _unpack(stream: _Stream, folder: Path, names: "MemberNames", unpacked: int, job: Job) -> None:
    """Unpack a stream; raises ValueError as `unpack` does."""
    total = 0
    for count, member in enumerate(_members(stream)):
        if count == MAX_MEMBERS:
            raise ValueError(f"it has more than {MAX_MEMBERS} members")
        try:
            is_folder = _is_folder(member)
            names.add(member.name, folder=is_folder)
        except ValueError as error:
            raise ValueError(f"member {_shown(member.name)}: {error}") from error
        target = folder.joinpath(*member.name.split("/"))
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            job.count(0)
            continue
        total += member.size
        if total > unpacked:
            raise ValueError(f"its files have more than the {unpacked} bytes that the registry says")
        _write(stream, member, target, job)
    rest = itertools.chain([stream.header], stream.take(_MAX_PADDING))
    if any(block.strip(b"\0") for block in rest) or list(stream.take(1)):
        raise ValueError("something follows behind its last member")
    if names.missing:
        raise ValueError(f"{', '.join(names.missing)} is not in it")
    if total != unpacked:
        raise ValueError(f"its files have {total} bytes, the registry says {unpacked}")


def _members(stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Headers of the tarball; the stream then stands before the member's bytes."""
    try:
        tar = tarfile.TarFile(fileobj=cast("tarfile._Fileobj", stream), mode="r", encoding="utf-8")
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a store may have millions
            yield member
    except _GZIP_ERRORS:
        raise
    except _HEADER_ERRORS as error:
        raise ValueError(f"no tar file, or a damaged one ({error})") from error


def _is_folder(member: tarfile.TarInfo) -> bool:
    """Tell files and folders apart; all else is refused."""
    if member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers):
        raise ValueError("it is a sparse file")
    if member.type == tarfile.DIRTYPE:
        return True
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        kinds = {
            tarfile.LNKTYPE: "a hard link",
            tarfile.SYMTYPE: "a symbolic link",
            tarfile.FIFOTYPE: "a pipe",
        }
        kind = "a device" if member.isdev() else "of an unknown kind"
        raise ValueError(f"it is {kinds.get(member.type, kind)}, not a file or folder")
    if member.size < 0:
        raise ValueError("its size is negative")
    return False


def _write(stream: _Stream, member: tarfile.TarInfo, target: Path, job: Job) -> None:
    """Write one new file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with job.naming(target), open(os.open(target, flags, 0o666), "wb", buffering=0) as file:
        left = member.size
        for block in stream.take(member.size):
            left -= len(block)
            job.count(len(block))
            view = memoryview(block)
            while len(view):
                view = view[file.write(view) :]
        if left:
            raise ValueError(f"member {_shown(member.name)}: it is cut short")


def _shown(name: str) -> str:
    """Give a member's name for a message, on one line and not too long."""
    return ascii(name if len(name) <= 100 else f"{name[:100]}...")


class MemberNames:
    """The names of one tarball's members: its split files, and what lies below its split folders (.zarr).

    A tarball comes over a network, so its names are checked as if someone meant harm: nothing may point out
    of the folder, mean another file on another operating system, or come twice.
    """

    def __init__(self, expected: Collection[str]) -> None:
        """Start with none of the expected files and folders, such as "burgers1d_train.h5"."""
        self._expected = tuple(expected)
        self._spellings: dict[str, str] = {}
        self._folders: dict[str, bool] = {}  # name -> whether it is a folder

    @property
    def missing(self) -> list[str]:
        """Split files and folders that have not come."""
        return [name for name in self._expected if name not in self._folders]

    def add(self, name: str, *, folder: bool) -> None:
        """Note a member; a ValueError says that its name is not allowed, or not beside those before."""
        if problem := name_problem(name):
            raise ValueError(f"its name {problem}")
        top, _, below = name.partition("/")
        is_store = top.endswith(GRAPHS)
        if top not in self._expected:
            raise ValueError(f"it is none of the dataset's files ({', '.join(self._expected)})")
        if below and not is_store:
            raise ValueError(f"only {GRAPHS} folders have members below them")
        if not below and folder != is_store:
            raise ValueError(f"it must be a {'folder' if is_store else 'file'}")
        if name in self._folders and not (folder and self._folders[name]):
            raise ValueError("it comes twice")
        self._note(name, folder)
        parent = name.rpartition("/")[0]
        while parent and not self._folders.get(parent):
            if parent in self._folders:
                raise ValueError(f"{parent!r} is both a file and a folder")
            self._note(parent, True)  # the folders above a member need no members of their own
            parent = parent.rpartition("/")[0]

    def _note(self, name: str, folder: bool) -> None:
        """Keep a name that no file system, without case or with its own Unicode, takes for another one."""
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = self._spellings.setdefault(folded, name)
        if other != name:
            raise ValueError(f"it differs from {other!r} only in case or Unicode form")
        self._folders[name] = folder


def name_problem(name: str) -> str | None:
    """Say why a name is no relative POSIX path of ordinary characters; None where it is."""
    parts = name.split("/")
    if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
        return "has characters that cannot be printed"
    if "\\" in name or ":" in name:
        return "has a backslash or a colon"
    if name.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, '.' or '..'"
    if len(name.encode()) > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        return f"is longer than {_MAX_PART_BYTES} bytes a part or {_MAX_NAME_BYTES} in all"
    return None
