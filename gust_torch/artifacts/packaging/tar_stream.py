"""A tar stream whose bytes depend on names and contents alone, not on times, owners, modes or places."""

import hashlib
import itertools
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1 << 20
_RECORD_BYTES = tarfile.RECORDSIZE
_CHANGED = "changed while it was packed; wait until its writer is done, then pack again"


@dataclass(frozen=True)
class Member:
    """A file or folder of the tarball.

    Attributes:
        name: Path in the tarball.
        path: Where it lies.
        size: Bytes; 0 for a folder.
        stamp: Changes when the file does; None for a folder, whose members say it.
    """

    name: str
    path: Path
    size: int
    stamp: tuple[int, ...] | None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.stamp is None


def list_members(path: Path) -> list[Member]:
    """Return a file, or a folder with everything below it in the order of the names, under its own name.

    Args:
        path: A file or folder; a symbolic link is followed, below it none is.

    Raises:
        ValueError: Something below is neither a file nor a folder.
    """
    return list(_walk(path, path.name, path.stat()))


def _walk(path: Path, name: str, status: os.stat_result) -> Iterator[Member]:
    """Yield the member at `path`, then those below it."""
    if stat.S_ISREG(status.st_mode):
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        yield Member(name, path, status.st_size, stamp)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(
            f"{path}: expected files and folders only, found a link or device; put in the file itself"
        )
    yield Member(name, path, 0, None)
    for child in sorted(os.listdir(path)):
        below = path / child
        yield from _walk(below, f"{name}/{child}", below.lstat())


def tar_stream(members: Sequence[Member], digests: dict[str, str]) -> Iterator[bytes]:
    """Bytes of a tarball: format of POSIX.1-2001, which GNU tar, bsdtar and Python read.

    Args:
        members: What goes in, in this order.
        digests: Is given the sha256 of each file as it goes by, under the member's name.

    Raises:
        ValueError: A file is not what it was when it was listed.
    """
    total = 0
    for member in members:
        header = _header(member)
        total += len(header) + member.size + (padding := -member.size % tarfile.BLOCKSIZE)
        yield header
        if not member.is_folder:
            digest = hashlib.sha256()
            for piece in read_exactly(member):
                digest.update(piece)
                yield piece
            digests[member.name] = digest.hexdigest()
        yield bytes(padding)
    yield bytes(2 * tarfile.BLOCKSIZE + -(total + 2 * tarfile.BLOCKSIZE) % _RECORD_BYTES)


def read_exactly(member: Member) -> Iterator[bytes]:
    """Yield the contents of a file.

    Raises:
        ValueError: It has become shorter or longer.
    """
    left = member.size
    with member.path.open("rb", buffering=0) as file:
        while left and (piece := file.read(min(left, _READ_BYTES))):
            left -= len(piece)
            yield piece
        if left or file.read(1):
            raise ValueError(f"{member.path}: {_CHANGED}")


def check_unchanged(members: Sequence[Member], roots: Sequence[Path]) -> None:
    """Make sure that files and folders are still what they were when they were listed.

    Args:
        members: As listed.
        roots: Where they were listed from.

    Raises:
        ValueError: One has changed, appeared or gone.
    """
    try:
        now = [member for path in roots for member in list_members(path)]
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: {_CHANGED}") from error
    for before, after in itertools.zip_longest(members, now):
        if before != after:
            raise ValueError(f"{(before or after).path}: {_CHANGED}")


def _header(member: Member) -> bytes:
    """Header of a member: root's, readable by all, as old as time."""
    info = tarfile.TarInfo(member.name)
    info.size, info.mtime, info.uid, info.gid, info.uname, info.gname = member.size, 0, 0, 0, "", ""
    info.type = tarfile.DIRTYPE if member.is_folder else tarfile.REGTYPE
    info.mode = 0o755 if member.is_folder else 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
