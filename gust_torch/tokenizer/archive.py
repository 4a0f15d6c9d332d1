"""Strict reading and whole-or-not-at-all writing of `.npz` archives of numbers and text."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.common.files import path_aside

__all__ = ["REMEDY", "new_archive", "read_arrays", "refuse_existing", "write_member"]

# Tokens have some 9 bits of entropy in 32: level 1 halves the file at 55 MB/s, level 6 gains 3 % at 8 MB/s.
DEFLATE_LEVEL = 1
MAX_DEFLATE = 1032  # no deflate stream grows by more
REMEDY = "make it with python -m gust_torch.tokenizer save"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
BAD_ARCHIVE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What Python and numpy raise for archives and arrays that are damaged, or made to look like some."""


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if `path` exists and may not be replaced, as no folder may."""
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder; name a file in it as --output")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass --overwrite to replace it, or choose another --output")


@contextmanager
def new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive that gets the name `path` when the block ends well."""
    with (
        path_aside(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=DEFLATE_LEVEL) as archive,
    ):
        yield archive


def write_member(
    archive: zipfile.ZipFile,
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Iterator[NDArray[Any]],
) -> None:
    """Write one `.npy` member from blocks that together have `shape` in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block).tobytes())


def read_arrays(
    path: Path, required: Sequence[str], *, skip: Callable[[str], bool]
) -> dict[str, NDArray[Any]]:
    """Read the stored arrays.

    Args:
        path: an `.npz`.
        required: keys without which it is no token file.
        skip: says which keys to leave out.

    Raises:
        ValueError: if the file is damaged, lacks a member or holds objects.
        FileNotFoundError: if it does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {REMEDY}")
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is cut short or not an .npz file; {REMEDY}")
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                missing = [key for key in required if key not in members]
                if missing:
                    raise ValueError(f"it lacks {', '.join(missing)}")
                return {key: _read_member(archive, members[key]) for key in members if not skip(key)}
        except BAD_ARCHIVE as error:
            raise ValueError(f"{path} is not a token file, or damaged: {error}; {REMEDY}") from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one `.npy` member; what its header claims is compared with its size before memory is taken."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = HEADERS.get(version)
        if read_header is None:
            raise ValueError(f"{info.filename} has .npy version {version}")
        shape, _, dtype = read_header(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which are not read")
        if min(shape, default=0) < 0 or member.tell() + size != info.file_size:
            raise ValueError(f"{info.filename} does not have the size that its header says")
        if info.file_size > MAX_DEFLATE * max(info.compress_size, 1) + 64:
            raise ValueError(f"{info.filename} says that it is larger than its bytes can tell")
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array
