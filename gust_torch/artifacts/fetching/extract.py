"""Unpacks a dataset's tarball into an empty folder, and nothing outside it, whatever the tarball says.

`tarfile` only parses headers here. What is a file or a folder, what it is called, where it goes and how it is
opened is decided in this module: regular files and folders with the names of the dataset, created new, with
this process's own permissions, and no more bytes than the registry promises.
"""

import itertools
import os
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import cast

from gust_torch.artifacts.fetching.gunzip import DamagedGzip, GzipStream
from gust_torch.artifacts.fetching.watch import Watch, naming
from gust_torch.artifacts.member_names import MemberNames

MAX_MEMBERS = 10_000_000
_MAX_PADDING = 16 << 20  # zeros behind the last member; GNU tar fills up its last record of 10 KiB

_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
# What tarfile raises at headers that no tar writes; found by feeding it damaged ones.
_HEADER_ERRORS = (
    tarfile.TarError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip


def extract(
    tarball: Path, folder: Path, *, members: Collection[str], unpacked: int, watch: Watch | None = None
) -> None:
    """Unpacks all members.

    Args:
        tarball: A .tar.gz file, also of several gzip members in a row.
        folder: An empty folder that nobody else uses; after an error it holds a part.
        members: Split files, and split folders that end in .zarr.
        unpacked: Bytes of all files together.
        watch: Progress and stop.

    Raises:
        ValueError: The tarball is damaged or holds anything but these members.
        OSError: The folder cannot be written to.
    """
    watch = Watch() if watch is None else watch
    try:
        with GzipStream(tarball) as stream:
            _extract(stream, folder, MemberNames(members), unpacked, watch)
    except ValueError as error:
        raise ValueError(
            f"{tarball} was not unpacked: {error}; ask for a new package of the dataset"
        ) from error


def _extract(stream: GzipStream, folder: Path, names: MemberNames, unpacked: int, watch: Watch) -> None:
    """Unpacks a stream.

    Raises:
        ValueError: As for `extract`.
    """
    total = 0
    for count, member in enumerate(_members(stream)):
        if count == MAX_MEMBERS:
            raise ValueError(f"it has more than {MAX_MEMBERS} members")
        try:
            is_folder = _is_folder(member)
            names.admit(member.name, folder=is_folder)
        except ValueError as error:
            raise ValueError(f"member {_shown(member.name)}: {error}") from error
        target = folder.joinpath(*member.name.split("/"))
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        total += member.size
        if total > unpacked:
            raise ValueError(f"its files have more than the {unpacked} bytes that the registry says")
        _write(stream, member, target, watch)
    _check_rest(stream)
    if names.missing:
        raise ValueError(f"{', '.join(names.missing)} is not in it")
    if total != unpacked:
        raise ValueError(f"its files have {total} bytes, the registry says {unpacked}")


def _members(stream: GzipStream) -> Iterator[tarfile.TarInfo]:
    """Headers of the tarball; the stream then stands before the member's bytes.

    Raises:
        ValueError: A header is damaged.
    """
    try:
        # Ten lines of a file object are enough for reading headers.
        tar = tarfile.TarFile(fileobj=cast("tarfile._Fileobj", stream), mode="r", encoding="utf-8")
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a store may have millions
            yield member
    except DamagedGzip:
        raise
    except _HEADER_ERRORS as error:
        raise ValueError(f"no tar file, or a damaged one ({error})") from error


def _is_folder(member: tarfile.TarInfo) -> bool:
    """Tells files and folders apart.

    Raises:
        ValueError: It is neither, or sparse, or its size is negative.
    """
    if member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers):
        raise ValueError("it is a sparse file")
    if member.type == tarfile.DIRTYPE:
        return True
    if member.type not in _FILE_TYPES:
        raise ValueError(f"it is {_KINDS.get(member.type, 'of an unknown kind')}, not a file or folder")
    if member.size < 0:
        raise ValueError("its size is negative")
    return False


def _write(stream: GzipStream, member: tarfile.TarInfo, target: Path, watch: Watch) -> None:
    """Write one new file.

    Raises:
        ValueError: The tarball ends before the member does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with naming(target), open(os.open(target, flags, 0o666), "wb", buffering=0) as file:
        left = member.size
        for block in stream.take(member.size):
            left -= len(block)
            watch.count(len(block))
            while len(block):
                block = block[file.write(block) :]
        if left:
            raise ValueError(f"member {_shown(member.name)}: it is cut short")


def _check_rest(stream: GzipStream) -> None:
    """Read to the end, where only zeros may come and checksums are compared.

    Raises:
        ValueError: There is something behind the last member.
    """
    rest = itertools.chain([stream.header], stream.take(_MAX_PADDING))
    if any(bytes(block).strip(b"\0") for block in rest) or list(stream.take(1)):
        raise ValueError("something follows behind its last member")


def _shown(name: str) -> str:
    """Return a member's name for a message, on one line and not too long."""
    return ascii(name if len(name) <= 100 else f"{name[:100]}...")
