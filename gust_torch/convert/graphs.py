"""Converts mesh and particle shards (.npz, one sample a file) to Zarr stores for training, in one pass."""

import hashlib
import logging
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gust_torch.convert.output import Options, Result, carry_out, find_files
from gust_torch.convert.splits import WHOLE, make_splits
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind, Schema, describe, differences, faults, word
from gust_torch.data.graphs.stores import open_reader
from solvers.common.progress import Interrupt, Progress
from solvers.common.provenance import provenance
from solvers.common.splits import GRAPHS, SPLITS, split_path
from solvers.common.stage import Stage

logger = logging.getLogger(__name__)

GRAPH_TASKS = {
    "darcy2d_mesh": (MESH, "2D/Darcy*/**/*.npz"),
    "particles_advect": (PARTICLES, "Particles/Advection/**/*.npz"),
}
"""Task -> what its samples are, and where they lie as released."""

_MAX_BYTES = 8 << 30

_NO_ARCHIVE = (OSError, zipfile.BadZipFile, NotImplementedError, ValueError)
_PYTHON_ERRORS = (ArithmeticError, EOFError, MemoryError, RuntimeError, SyntaxError, TypeError)
_UNREADABLE = (*_NO_ARCHIVE, *_PYTHON_ERRORS, zlib.error, lzma.LZMAError)


def convert_graphs(
    name: str, root: Path, out: Path, options: Options, pattern: str | None = None, skip_bad: bool = False
) -> Result:
    """Convert the shards of a task to `out/NAME_train.zarr`, `NAME_val.zarr` and `NAME_test.zarr`.

    Arguments are those of `convert_family`; with `skip_bad` it goes on without bad shards and lists them. The
    split is drawn over all shards, good or bad, so that a bad one moves no other.

    Raises:
        ValueError: No shards, or the first bad one with all that is wrong; nothing is left behind.
        OSError: Writing failed; nothing is left behind.
    """
    for flag in ("samples", "compression"):
        if getattr(options, flag) is not None:
            raise ValueError(f"--{flag} is for grids; leave it out for {name}, where a shard is one sample")
    kind = GRAPH_TASKS[name][0]
    names = find_shards(name, root, pattern)[: options.limit]
    splits = make_splits(names, options.splits, options.seed)
    targets = {split: split_path(out, name, split, GRAPHS) for split in SPLITS}
    if options.splits is None:
        targets = {WHOLE: out / f"{name}{GRAPHS}"}
    if foreign := [path for path in targets.values() if path.exists() and not (path / "zarr.json").is_file()]:
        raise ValueError(f"{foreign[0]} is not a Zarr store and stays; choose another --out")
    attributes = {"task": name, "seed": options.seed, "fractions": list(splits.fractions), **provenance()}
    skipped: list[str] | None = [] if skip_bad else None

    def write(stage: Stage, paths: Mapping[str, Path], interrupt: Interrupt) -> None:
        writers: dict[str, RaggedWriter] = {}
        with Progress(len(names), unit="shard", description=name) as progress:
            shards = _sound_shards([root / each for each in names], kind, skipped)
            for source, index, shard in zip(names, splits.assignment.tolist(), shards, strict=True):
                if interrupt.signal:
                    return
                if shard is not None:
                    split = splits.names[index]
                    if split not in writers:
                        own = {**attributes, "split": split}
                        writers[split] = RaggedWriter(paths[split], kind, attributes=own)
                    writers[split].append(shard[0], source=Path(source).as_posix(), schema=shard[1])
                progress.update(1)
        if skipped:
            logger.warning("skipped %d of %d shards:\n  %s", len(skipped), len(names), "\n  ".join(skipped))
        if not writers:
            raise ValueError(f"none of {len(names)} shards can be used; check --root and --pattern")
        for writer in writers.values():
            writer.close()
        for split, fraction in zip(splits.names, splits.fractions, strict=True):
            if fraction > 0 and split not in writers:
                logger.warning("no sample for the split %r, which gets no store: take more shards", split)
        stage.record(counts={key: {"samples": writers[key].num_samples} for key in paths if key in writers})

    verify = partial(_verify, root=root, kind=kind)
    return carry_out(targets, name, {"task": name}, options, write, verify, resumes=False)


def find_shards(name: str, root: Path, pattern: str | None = None) -> list[str]:
    """Shards of a task: in the released folder, else every .npz below the root with any of its arrays."""
    kind, released = GRAPH_TASKS[name]
    names = find_files(root, pattern or released)
    if names:
        return names
    candidates = find_files(root, "**/*.npz") if pattern is None else []
    own = set(kind.arrays) - {"edges"}
    # Unreadable files stay in, to be refused by name.
    names = [each for each in candidates if (keys := _shard_keys(root / each)) is None or keys & own]
    if not names:
        searched = pattern or f"of .npz shards with {', '.join(kind.arrays)}"
        raise ValueError(f"{root}: no files match {searched}; check --root and --pattern")
    if len(names) < len(candidates):
        logger.info("%d other .npz files left out", len(candidates) - len(names))
    return names


def _shard_keys(path: Path) -> set[str] | None:
    """Names of the arrays of a shard; None where the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except _NO_ARCHIVE:
        return None


def _sound_shards(
    paths: Sequence[Path], kind: Kind, skipped: list[str] | None
) -> Iterator[tuple[dict[str, np.ndarray], Schema] | None]:
    """Yield shard after shard, checked by itself and against those before it.

    Where there is a list `skipped`, it gets what is wrong with bad ones, for which None is yielded.
    """
    schema: Schema | None = None
    seen: dict[bytes, Path] = {}
    for path in paths:
        try:
            arrays, own = read_shard(path, kind)
            if phrases := differences(schema or own, own):
                raise ValueError(
                    f"{path}: {'; '.join(phrases)}; convert such shards by themselves (--pattern)"
                )
            digest = hashlib.blake2b(digest_size=16)
            for name in sorted(arrays):
                digest.update(f"{name}{arrays[name].shape}".encode())
                digest.update(arrays[name].data)
            if (first := seen.setdefault(digest.digest(), path)) is not path:
                raise ValueError(f"{path}: holds the same arrays as {first}; remove one, or give --skip-bad")
        except ValueError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            yield None
        else:
            schema = own
            yield arrays, own


def read_shard(path: Path, kind: Kind) -> tuple[dict[str, np.ndarray], Schema]:
    """Read a shard, or raise ValueError with everything that is wrong with it; nothing is unpickled."""
    arrays, unread = _load(path)
    found, arrays = faults(kind, arrays, known=unread)
    reasons = [f"key {name!r} {reason}" for name, reason in unread.items()] + found
    schema: Schema = {}
    # Further arrays are recognized by the number of nodes; without it there is nothing to say about them.
    if kind.geometry in arrays:
        try:
            schema = describe(kind, arrays)
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError(f"{path}: {'; '.join(reasons)}; repair or remove the shard, or give --skip-bad")
    return arrays, schema


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the numeric arrays of a file in this machine's byte order, and what is wrong with others."""
    arrays: dict[str, np.ndarray] = {}
    unread = {}
    try:
        archive = zipfile.ZipFile(path)
        if (size := sum(member.file_size for member in archive.infolist())) > _MAX_BYTES:
            raise ValueError(
                f"it holds {size / 1e9:.3g} GB, expected one sample of at most {_MAX_BYTES / 1e9:.3g}"
            )
    except _NO_ARCHIVE as error:
        raise ValueError(f"{path}: unreadable, {error}; copy the shard again, or give --skip-bad") from error
    with archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            try:
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
            except _UNREADABLE as error:
                said = "an object array, which is never unpickled" if "Object arrays" in str(error) else error
                unread[name] = f"cannot be read: {str(said) or type(error).__name__}"
                continue
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                unread[name] = f"holds {array.dtype}, expected {word(name)}"
            else:
                arrays[name] = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    return arrays, unread


def _verify(stores: Mapping[str, Path], root: Path, kind: Kind) -> None:
    """Compare every array of the stores with its shard, bit for bit."""
    for split, store in stores.items():
        reader = open_reader(store, kind, kind.group, cache_bytes=8 << 20, storage_options=None)
        with Progress(reader.num_samples, unit="shard", description=f"verify {split}") as progress:
            for index in range(reader.num_samples):
                path = root / reader.source(index)
                stored, expected = (
                    {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
                    for arrays in (reader.read(index)[0], read_shard(path, kind)[0])
                )
                if stored != expected:
                    raise ValueError(f"{path}: differs in the store that was written; convert again")
                progress.update(1)
