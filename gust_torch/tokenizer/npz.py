"""Writer and reader of `tokens.npz`; docs/tokens.md lists the keys, shapes and dtypes.

The file holds numbers and text only, so it opens with `allow_pickle=False`. Members are written in blocks of
samples: a set of tokens larger than memory can be written from a memory-mapped array.
"""

from __future__ import annotations

import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections import UserDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.models.scales import scale_names
from gust_torch.tokenizer.gust2 import gust2_arrays, read_gust2
from gust_torch.tokenizer.vocabulary import CODEBOOK, TABLE, Vocabulary
from solvers.common.files import path_aside

FORMAT_VERSION = 1
BLOCK_SAMPLES = 4096
MAX_SCALE = 1 << 16
# Tokens have some 9 bits of entropy in 32: level 1 halves the file at 55 MB/s, level 6 gains 3 % at 8 MB/s.
DEFLATE_LEVEL = 1
REMEDY = "make it with python -m gust_torch.tokenizer save"
OF_SAMPLES = ("trajectory", "time")
OF_FIELDS = ("field_names", "mean", "std")
COUNTS = ("effective_vocab_size", "vocab_size", "codebook_dim", "first_trainable_scale")
INTEGERS = ("indices_flat", "scales", "unified_to_scale", "unified_to_original", "new_to_old")
NUMBERS = (*INTEGERS, *OF_SAMPLES, "mean", "std")
BAD_ARCHIVE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
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


@dataclass(frozen=True)
class TokenSource:
    """What the tokens were made from.

    Attributes:
        field_names: (c,) channel names.
        mean: (c,) mean that the model subtracts; stored as float32.
        std: (c,) standard deviation that it divides by; stored as float32.
        trajectory: (n,) trajectory of each sample; stored as int32.
        time: (n,) time of each sample; stored as float64.
        config: architecture, field specification and provenance; JSON types only.
    """

    field_names: tuple[str, ...]
    mean: NDArray[Any]
    std: NDArray[Any]
    trajectory: NDArray[Any]
    time: NDArray[Any]
    config: Mapping[str, Any]


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if `path` exists and may not be replaced, as no folder may."""
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder; name a file in it as --output")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass --overwrite to replace it, or choose another --output")


def write_tokens(
    path: Path,
    codes: NDArray[np.integer[Any]],
    vocabulary: Vocabulary,
    source: TokenSource,
    *,
    overwrite: bool,
) -> None:
    """Write a token file, whole or not at all.

    Args:
        path: the `.npz` to write.
        codes: (n, L) original codes, scales concatenated coarse to fine; may be memory-mapped.
        vocabulary: the numbering to apply.
        source: what the tokens were made from.
        overwrite: whether an existing file may be replaced, instead of a FileExistsError.
    """
    refuse_existing(path, overwrite=overwrite)
    small = {
        **vocabulary.arrays(),
        "config_json": np.array(json.dumps({"format_version": FORMAT_VERSION, **source.config})),
        "trajectory": np.asarray(source.trajectory, dtype=np.int32),
        "time": np.asarray(source.time, dtype=np.float64),
        "field_names": np.array(source.field_names),
        "mean": np.asarray(source.mean, dtype=np.float32),
        "std": np.asarray(source.std, dtype=np.float32),
    }
    n = len(codes)

    def blocks(scale: int | None) -> Iterator[NDArray[np.int32]]:
        for start in range(0, n, BLOCK_SAMPLES):
            parts = vocabulary.remap(codes[start : start + BLOCK_SAMPLES])
            yield np.concatenate(parts, axis=1) if scale is None else parts[scale]

    with _new_archive(path) as archive:
        for key, array in small.items():
            _write(archive, key, array.shape, array.dtype, [array])
        dtype = np.dtype(np.int32)
        _write(archive, "indices_flat", (n, vocabulary.tokens_per_sample), dtype, blocks(None))
        for k, name in enumerate(scale_names(vocabulary.scales)):
            _write(archive, f"indices_scale_{name}", (n, *vocabulary.scales[k]), dtype, blocks(k))


def export_gust2(path: Path, output: Path, *, overwrite: bool) -> None:
    """Write a token file anew in gust2's layout; a ValueError where a scale is no square."""
    refuse_existing(output, overwrite=overwrite)
    stored, vocabulary, _ = _read(path)
    arrays = gust2_arrays(stored["indices_flat"], vocabulary, stored)
    with _new_archive(output) as archive:
        for key, array in arrays.items():
            _write(archive, key, array.shape, array.dtype, [array])


class Tokens(UserDict[str, Any]):
    """The content of a token file by the documented keys.

    `vectors_flat` (n, L, d) is looked up in `codebook` whenever it is asked for: for 100,000 samples it is
    some ten GB, so look up a batch instead: `tokens["codebook"][tokens["indices_flat"][i:j]]`.
    """

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `vectors_flat` is computed now."""
        if key == "vectors_flat":
            return self.data["codebook"][self.data["indices_flat"]]
        return self.data[key]


def load_tokenized_data(path: str | Path) -> Tokens:
    """Load a token file for training an autoregressive model.

    Returns:
        A mapping with `indices_flat` (n, L) int32, `vectors_flat` (n, L, d) float32 (computed on access),
        `codebook` (V, d), `effective_vocab_size`, `vocab_size`, `codebook_dim` and `first_trainable_scale`
        (int), `config` (dict), `scales` (tuple of (h, w)), `scale_offsets`, `scale_vocab_sizes`,
        `unified_to_scale`, `unified_to_original`, `scale_old_to_unified` and `original_codebooks` (lists over
        scales), `indices_scale_{h}x{w}` (n, h, w), `trajectory`, `time`, `field_names`, `mean`, `std`.

    Raises:
        ValueError: if the file is not a token file, or its members contradict each other.
        FileNotFoundError: if it does not exist.
    """
    stored, vocabulary, config = _read(Path(path))
    skipped = ("config_json", "scales", TABLE, CODEBOOK)
    values: dict[str, Any] = {key: array for key, array in stored.items() if not key.startswith(skipped)}
    for key in COUNTS:
        values[key] = int(values[key])
    values |= {"config": config, "scales": vocabulary.scales, "vectors_flat": None}
    values["scale_old_to_unified"] = [stored[f"{TABLE}{k}"] for k in vocabulary.numbers]
    values["original_codebooks"] = [stored[f"{CODEBOOK}{k}"] for k in vocabulary.numbers]
    for k, part in enumerate(vocabulary.split(stored["indices_flat"])):
        name = scale_names(vocabulary.scales)[k]
        values[f"indices_scale_{name}"] = part.reshape(-1, *vocabulary.scales[k])  # a view, never a copy
    if "field_names" in values:
        values["field_names"] = tuple(values["field_names"].tolist())
    return Tokens(values)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read the vocabulary of a token file, as strictly as `load_tokenized_data`."""
    return _read(Path(path), tokens=False)[1]


@contextmanager
def _new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with (
        path_aside(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=DEFLATE_LEVEL) as archive,
    ):
        yield archive


def _write(
    archive: zipfile.ZipFile, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Any
) -> None:
    """Write one `.npy` member from blocks that together have `shape` in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block).tobytes())


class _Members(dict[str, NDArray[Any]]):
    def __missing__(self, key: str) -> NDArray[Any]:
        raise ValueError(f"it lacks {key}")


def _read(path: Path, *, tokens: bool = True) -> tuple[_Members, Vocabulary, dict[str, Any]]:
    """Read the members in our layout, the vocabulary that they describe and the configuration, checked.

    The copies of the tokens for each scale are left out, and all tokens where they are not needed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {REMEDY}")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is cut short or no .npz archive")
        with np.load(path, allow_pickle=False) as archive:
            is_gust2 = archive["scales"].ndim == 1  # where the tokens tell which codes are in use
            skipped = "indices_scale_" if tokens or is_gust2 else "indices_"
            stored = _Members({key: archive[key] for key in archive.files if not key.startswith(skipped)})
        for key in NUMBERS:
            kinds, words = ("iu", "whole numbers") if key in INTEGERS else ("iuf", "numbers")
            if key in stored and stored[key].dtype.kind not in kinds:
                raise ValueError(f"{key} has type {stored[key].dtype}, expected {words}")
        if is_gust2:
            stored = _Members(read_gust2(stored, FORMAT_VERSION))
        elif missing := {"indices_flat", *OF_SAMPLES, *OF_FIELDS}.difference(archive.files):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        config = json.loads(str(stored["config_json"]))
        if (version := config.get("format_version")) != FORMAT_VERSION:
            raise ValueError(f"it has format version {version}, this version reads {FORMAT_VERSION}")
        vocabulary = _vocabulary(stored, config.get("provenance") or {})
        _check(stored, vocabulary)
    except BAD_ARCHIVE as error:
        raise ValueError(f"{path} is not a token file, or damaged: {error}; {REMEDY}") from error
    return stored, vocabulary, config


def _vocabulary(stored: _Members, origin: Mapping[str, Any]) -> Vocabulary:
    """Build the vocabulary that the members of a file describe."""
    scales, of_scale = stored["scales"], stored["unified_to_scale"]
    if not 1 <= scales.min() <= scales.max() <= MAX_SCALE:
        raise ValueError(f"scales lie outside 1..{MAX_SCALE}: {scales.tolist()}")
    numbers = range(len(scales))
    return Vocabulary(
        scales=tuple((int(h), int(w)) for h, w in scales),
        codebooks=tuple(stored[f"{CODEBOOK}{k}"] for k in numbers),
        codes_in_use=tuple(stored["unified_to_original"][of_scale == k].astype(np.int64) for k in numbers),
        weights_sha256=origin.get("weights_sha256"),
        checkpoint_sha256=origin.get("checkpoint_sha256"),
    )


def _check(stored: _Members, vocabulary: Vocabulary) -> None:
    """Refuse members that contradict the vocabulary or each other, and tokens of another scale."""
    ranges = []
    for key, array in vocabulary.arrays().items():
        found = stored[key]
        # Which code is the nearest may be a matter of rounding: of the tables only the range is compared.
        is_table = key.startswith(TABLE)
        if is_table:
            ranges.append((key, int(key.removeprefix(TABLE)), found))
        if found.shape != array.shape or found.dtype.kind != array.dtype.kind:
            raise ValueError(f"{key} has shape {found.shape} and type {found.dtype}")
        if not is_table and not np.array_equal(found, array):
            raise ValueError(f"{key} does not follow from the codebooks and the codes in use")
    if "indices_flat" in stored:
        tokens = stored["indices_flat"]
        expected = (len(tokens), vocabulary.tokens_per_sample)
        if tokens.shape != expected:
            raise ValueError(f"indices_flat has shape {tokens.shape}, expected {expected} for its scales")
        ranges += [("indices_flat", k, part) for k, part in enumerate(vocabulary.split(tokens))]
        if any(key in stored and stored[key].shape != tokens.shape[:1] for key in OF_SAMPLES):
            raise ValueError(f"{' and '.join(OF_SAMPLES)} do not fit its {len(tokens)} samples")
    for key, k, part in ranges:
        first = int(vocabulary.scale_offsets[k])
        last = first + int(vocabulary.scale_vocab_sizes[k]) - 1
        if part.size and not first <= part.min() <= part.max() <= last:
            h, w = vocabulary.scales[k]
            text = f"{key} holds {part.min()} to {part.max()}"
            raise ValueError(f"{text} at scale {h}x{w}, which owns {first} to {last}")
    shapes = {stored[key].shape for key in OF_FIELDS if key in stored}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"{', '.join(OF_FIELDS)} do not fit together")
