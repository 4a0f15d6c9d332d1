"""Writer and reader of `tokens.npz`; docs/tokens.md lists the keys, shapes and dtypes.

The file holds numbers and text only, so it opens with `allow_pickle=False`. Members are written in blocks of
samples: a set of tokens larger than memory can be written from a memory-mapped array.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.tokenizer.vocabulary import Vocabulary
from solvers.common.files import path_aside

__all__ = [
    "FORMAT_VERSION",
    "TokenSource",
    "Tokens",
    "load_tokenized_data",
    "read_vocabulary",
    "write_tokens",
]

FORMAT_VERSION = 1
# Tokens have some 9 bits of entropy in 32: level 1 halves the file at 55 MB/s, level 6 gains 3 % at 8 MB/s.
DEFLATE_LEVEL = 1
BLOCK_SAMPLES = 4096
REQUIRED = (
    "indices_flat",
    "codebook",
    "effective_vocab_size",
    "config_json",
    "scales",
    "unified_to_scale",
    "unified_to_original",
    "scale_old_to_unified_0",
    "original_codebook_scale_0",
)


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


def write_tokens(
    path: Path,
    codes: NDArray[np.integer[Any]],
    vocabulary: Vocabulary,
    source: TokenSource,
    *,
    overwrite: bool,
) -> None:
    """Write a token file under a temporary name and rename it, so that `path` is never half written.

    Args:
        path: the `.npz` to write.
        codes: (n, L) original codes, scales concatenated coarse to fine; may be memory-mapped.
        vocabulary: the numbering to apply.
        source: what the tokens were made from.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    refuse_existing(path, overwrite=overwrite)
    with (
        path_aside(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=DEFLATE_LEVEL) as archive,
    ):
        for key, array in small_arrays(vocabulary, source).items():
            write_member(archive, key, array.shape, array.dtype, iter([array]))
        write_indices(archive, codes, vocabulary)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if `path` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass --overwrite to replace it, or choose another --output")


def small_arrays(vocabulary: Vocabulary, source: TokenSource) -> dict[str, NDArray[Any]]:
    """Return every member of the file but the token arrays, by key."""
    arrays: dict[str, NDArray[Any]] = {
        "codebook": vocabulary.codebook,
        "effective_vocab_size": np.array(vocabulary.effective_vocab_size, dtype=np.int64),
        "vocab_size": np.array(max(len(book) for book in vocabulary.codebooks), dtype=np.int64),
        "codebook_dim": np.array(vocabulary.codebook.shape[1], dtype=np.int64),
        "config_json": np.array(json.dumps({"format_version": FORMAT_VERSION, **source.config})),
        "scales": np.array(vocabulary.scales, dtype=np.int64),
        "scale_offsets": vocabulary.scale_offsets,
        "scale_vocab_sizes": vocabulary.scale_vocab_sizes,
        "unified_to_scale": vocabulary.unified_to_scale,
        "unified_to_original": vocabulary.unified_to_original,
        "first_trainable_scale": np.array(vocabulary.first_trainable_scale, dtype=np.int64),
        "trajectory": np.asarray(source.trajectory, dtype=np.int32),
        "time": np.asarray(source.time, dtype=np.float64),
        "field_names": np.array(source.field_names),
        "mean": np.asarray(source.mean, dtype=np.float32),
        "std": np.asarray(source.std, dtype=np.float32),
    }
    for k, (table, book) in enumerate(zip(vocabulary.old_to_unified, vocabulary.codebooks, strict=True)):
        arrays[f"scale_old_to_unified_{k}"] = table
        arrays[f"original_codebook_scale_{k}"] = np.asarray(book, dtype=np.float32)
    return arrays


def write_indices(archive: zipfile.ZipFile, codes: NDArray[np.integer[Any]], vocabulary: Vocabulary) -> None:
    """Write `indices_flat` and each `indices_scale_{h}x{w}`, remapping block by block."""
    num_samples = len(codes)
    dtype = np.dtype(np.int32)

    def blocks(scale: int | None) -> Iterator[NDArray[np.int32]]:
        for start in range(0, num_samples, BLOCK_SAMPLES):
            parts = vocabulary.remap(codes[start : start + BLOCK_SAMPLES])
            yield np.concatenate(parts, axis=1) if scale is None else parts[scale]

    flat_shape = (num_samples, vocabulary.tokens_per_sample)
    write_member(archive, "indices_flat", flat_shape, dtype, blocks(None))
    for k, (h, w) in enumerate(vocabulary.scales):
        write_member(archive, f"indices_scale_{h}x{w}", (num_samples, h, w), dtype, blocks(k))


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


class Tokens(Mapping[str, Any]):
    """The content of a token file by the documented keys.

    `vectors_flat` (n, L, d) is looked up in `codebook` whenever it is asked for: for 100,000 samples it is
    some ten GB, so look up a batch instead: `tokens["codebook"][tokens["indices_flat"][i:j]]`.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Wrap the stored values.

        Args:
            values: key -> value, all but `vectors_flat`.
        """
        self._values = values

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `vectors_flat` is computed now."""
        if key == "vectors_flat":
            return self._values["codebook"][self._values["indices_flat"]]
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        """Whether the key exists, without computing its value."""
        return key == "vectors_flat" or key in self._values

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        yield from self._values
        yield "vectors_flat"

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._values) + 1


def load_tokenized_data(path: str | Path) -> Tokens:
    """Load a token file for training an autoregressive model.

    Args:
        path: a `tokens.npz`.

    Returns:
        A mapping with `indices_flat` (n, L) int32, `vectors_flat` (n, L, d) float32 (computed on access),
        `codebook` (V, d), `effective_vocab_size`, `vocab_size`, `codebook_dim` and `first_trainable_scale`
        (int), `config` (dict), `scales` (tuple of (h, w)), `scale_offsets`, `scale_vocab_sizes`,
        `unified_to_scale`, `unified_to_original`, `scale_old_to_unified` and `original_codebooks` (lists over
        scales), `indices_scale_{h}x{w}` (n, h, w), `trajectory`, `time`, `field_names`, `mean`, `std`.

    Raises:
        ValueError: if the file is not a token file.
        FileNotFoundError: if it does not exist.
    """
    stored = read_arrays(Path(path))
    scales = tuple((int(h), int(w)) for h, w in stored.pop("scales"))
    values: dict[str, Any] = {"config": json.loads(str(stored.pop("config_json"))), "scales": scales}
    values["scale_old_to_unified"] = [stored.pop(f"scale_old_to_unified_{k}") for k in range(len(scales))]
    values["original_codebooks"] = [stored.pop(f"original_codebook_scale_{k}") for k in range(len(scales))]
    if "field_names" in stored:
        values["field_names"] = tuple(str(name) for name in stored.pop("field_names"))
    start = 0
    for h, w in scales:
        # A view: splitting an axis never copies.
        values[f"indices_scale_{h}x{w}"] = stored["indices_flat"][:, start : start + h * w].reshape(-1, h, w)
        start += h * w
    values |= {key: int(array) if array.ndim == 0 else array for key, array in stored.items()}
    return Tokens(values)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read the vocabulary of a token file.

    Raises:
        ValueError: if the file is not a token file.
        FileNotFoundError: if it does not exist.
    """
    stored = read_arrays(Path(path), skip=("indices_flat",))
    scales = tuple((int(h), int(w)) for h, w in stored["scales"])
    of_scale = [stored["unified_to_scale"] == k for k in range(len(scales))]
    return Vocabulary(
        scales=scales,
        codebooks=tuple(stored[f"original_codebook_scale_{k}"] for k in range(len(scales))),
        codes_in_use=tuple(stored["unified_to_original"][mask] for mask in of_scale),
    )


def read_arrays(path: Path, *, skip: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Read the stored arrays but those in `skip` and the per-scale copies of the tokens."""
    remedy = "make it with python -m gust_torch.tokenizer save"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is cut short or not an .npz file; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in REQUIRED if key not in archive.files]
            if missing:
                raise ValueError(f"{path} is not a token file, it lacks {', '.join(missing)}; {remedy}")
            keys = [key for key in archive.files if key not in skip and not key.startswith("indices_scale_")]
            return {key: archive[key] for key in keys}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
