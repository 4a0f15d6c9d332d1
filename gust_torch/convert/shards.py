"""Reads a mesh or particle shard (.npz) and finds everything that is wrong with it; nothing is unpickled."""

import hashlib
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gust_torch.data.graphs.checks import faults, word
from gust_torch.data.graphs.schema import Kind, Schema, describe

MAX_BYTES = 8 << 30

_NUMERIC = "biuf"
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,
    OverflowError,
    MemoryError,
    SyntaxError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class Shard:
    """A sound shard: its arrays under their names, where they go, and a digest of them all."""

    arrays: Mapping[str, np.ndarray]
    schema: Schema
    digest: bytes


def read_shard(path: Path, kind: Kind) -> Shard:
    """Read and check one shard.

    Args:
        path: The .npz file.
        kind: Mesh or particles.

    Raises:
        ValueError: Everything that is wrong with it, in one line.
    """
    arrays, unread = _load(path)
    reasons = [f"key {name!r} {reason}" for name, reason in unread.items()]
    found, arrays = faults(kind, arrays, known=unread)
    reasons += found
    schema: Schema = {}
    # Further arrays are recognized by the number of nodes; without it there is nothing to say about them.
    if kind.geometry in arrays:
        try:
            schema = describe(kind, arrays)
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError(f"{path}: {'; '.join(reasons)}; repair or remove the shard, or give --skip-bad")
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return Shard(arrays, schema, digest.digest())


def shard_keys(path: Path) -> set[str] | None:
    """Names of the arrays of a shard; None where the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return None


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the numeric arrays of a file, in this machine's byte order, and what is wrong with which others.

    Raises:
        ValueError: The file is no .npz archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{path}: unreadable, {error}; copy the shard again, or give --skip-bad to go on without it"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    unread = {}
    with archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(
                f"{path}: holds {size / 1e9:.3g} GB, expected one sample of at most "
                f"{MAX_BYTES / 1e9:.3g} GB; divide it, or give --skip-bad"
            )
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            try:
                array = _read_member(archive, member)
            except _UNREADABLE as error:
                said = "an object array, which is never unpickled" if "Object arrays" in str(error) else error
                unread[name] = f"cannot be read: {str(said) or type(error).__name__}"
                continue
            if array.dtype.kind not in _NUMERIC or array.dtype.itemsize > 8:
                unread[name] = f"holds {array.dtype}, expected {word(name)}"
            else:
                arrays[name] = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    return arrays, unread


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read one array, after comparing the size it says it has with what is there."""
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in header:
            raise ValueError(f"version {version} of the .npy format")
        shape, _, dtype = header[version](file)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (size > member.file_size and not dtype.hasobject):
        raise ValueError(f"it says shape {shape}, {size} bytes, and has {member.file_size}")
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array
