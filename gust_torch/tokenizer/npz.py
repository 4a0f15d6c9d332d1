"""Writer and reader of `tokens.npz`; docs/tokens.md lists the keys, shapes and dtypes.

The file holds numbers and text only, so it opens with `allow_pickle=False`. Members are written in blocks of
samples: a set of tokens larger than memory can be written from a memory-mapped array.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.tokenizer.archive import REMEDY, new_archive, read_arrays, refuse_existing, write_member
from gust_torch.tokenizer.gust2 import gust2_arrays, is_gust2, read_gust2
from gust_torch.tokenizer.vocabulary import CODEBOOK, TABLE, Vocabulary

__all__ = [
    "FORMAT_VERSION",
    "TokenSource",
    "Tokens",
    "export_gust2",
    "load_tokenized_data",
    "read_vocabulary",
    "write_tokens",
]

FORMAT_VERSION = 1
BLOCK_SAMPLES = 4096
MAX_SCALE = 1 << 16
REQUIRED = (
    "indices_flat",
    "codebook",
    "effective_vocab_size",
    "vocab_size",
    "codebook_dim",
    "config_json",
    "scales",
)
"""Members of every layout."""
OF_VOCABULARY = (
    "scale_offsets",
    "scale_vocab_sizes",
    "unified_to_scale",
    "unified_to_original",
    "first_trainable_scale",
)
OF_SAMPLES = ("trajectory", "time")
OF_FIELDS = ("field_names", "mean", "std")


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

    def __post_init__(self) -> None:
        """Check that each sample has one time and one trajectory.

        Raises:
            ValueError: if not.
        """
        if self.time.ndim != 1 or self.time.shape != self.trajectory.shape:
            raise ValueError(
                f"expected times and trajectories of shape (n,), got {self.time.shape} and "
                f"{self.trajectory.shape}; give one of each for a sample"
            )


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
    if len(codes) != len(source.time):
        raise ValueError(f"{path}: {len(codes)} samples have {len(source.time)} times; give one for each")
    with new_archive(path) as archive:
        for key, array in small_arrays(vocabulary, source).items():
            write_member(archive, key, array.shape, array.dtype, iter([array]))
        write_indices(archive, codes, vocabulary)


def small_arrays(vocabulary: Vocabulary, source: TokenSource) -> dict[str, NDArray[Any]]:
    """Return every member of the file but the token arrays, by key."""
    return {
        **vocabulary.arrays(),
        "config_json": np.array(json.dumps({"format_version": FORMAT_VERSION, **source.config})),
        "trajectory": np.asarray(source.trajectory, dtype=np.int32),
        "time": np.asarray(source.time, dtype=np.float64),
        "field_names": np.array(source.field_names),
        "mean": np.asarray(source.mean, dtype=np.float32),
        "std": np.asarray(source.std, dtype=np.float32),
    }


def export_gust2(path: str | Path, output: Path, *, overwrite: bool) -> None:
    """Write a token file anew in gust2's layout.

    Args:
        path: a `tokens.npz`.
        output: the file to write.
        overwrite: whether `output` may be replaced.

    Raises:
        ValueError: if `path` is no token file, or a scale is no square.
        FileExistsError: if `output` exists and `overwrite` is false.
    """
    refuse_existing(output, overwrite=overwrite)
    stored, vocabulary, _ = _read(Path(path))
    _check_tokens(Path(path), stored, vocabulary)
    arrays = gust2_arrays(stored["indices_flat"], vocabulary, stored)
    with new_archive(output) as archive:
        for key, array in arrays.items():
            write_member(archive, key, array.shape, array.dtype, iter([array]))


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
        ValueError: if the file is not a token file, or its members contradict each other.
        FileNotFoundError: if it does not exist.
    """
    stored, vocabulary, config = _read(Path(path))
    tokens = stored["indices_flat"]
    _check_tokens(Path(path), stored, vocabulary)
    values: dict[str, Any] = {"config": config, "scales": vocabulary.scales}
    values["scale_old_to_unified"] = [stored[f"{TABLE}{k}"] for k in vocabulary.numbers]
    values["original_codebooks"] = [stored[f"{CODEBOOK}{k}"] for k in vocabulary.numbers]
    for (h, w), part in zip(vocabulary.scales, vocabulary.split(tokens), strict=True):
        values[f"indices_scale_{h}x{w}"] = part.reshape(-1, h, w)  # a view: splitting an axis never copies
    for key in (*REQUIRED, *OF_VOCABULARY, *OF_SAMPLES, *OF_FIELDS):
        if key in stored and key not in ("config_json", "scales"):
            values[key] = int(stored[key]) if stored[key].ndim == 0 else stored[key]
    if "field_names" in values:
        values["field_names"] = tuple(str(name) for name in values["field_names"])
    return Tokens(values)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read the vocabulary of a token file.

    Raises:
        ValueError: if the file is not a token file, or its members contradict each other.
        FileNotFoundError: if it does not exist.
    """
    return _read(Path(path), skip=("indices_flat",))[1]


def _read(
    path: Path, *, skip: tuple[str, ...] = ()
) -> tuple[dict[str, NDArray[Any]], Vocabulary, dict[str, Any]]:
    """Read the members, the vocabulary that they describe and the configuration, checked.

    Args:
        path: the token file.
        skip: members to leave out; the per-scale copies of the tokens are always left out.

    Raises:
        ValueError: if the file is not a token file, or its members contradict each other.
        FileNotFoundError: if it does not exist.
    """
    stored = read_arrays(path, REQUIRED, skip=lambda key: key in skip or key.startswith("indices_scale_"))
    if is_gust2(stored) and skip:  # the tokens tell which codes are in use
        return _read(path)
    try:
        if is_gust2(stored):
            stored = read_gust2(stored, FORMAT_VERSION)
        else:
            missing = [key for key in (*OF_VOCABULARY, *OF_SAMPLES, *OF_FIELDS) if key not in stored]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
        config = json.loads(str(stored["config_json"]))
        if not isinstance(config, dict) or config.get("format_version") != FORMAT_VERSION:
            found = config.get("format_version") if isinstance(config, dict) else None
            raise ValueError(f"it has format version {found}, this version reads {FORMAT_VERSION}")
        vocabulary = _vocabulary(stored, config)
        _check_members(stored, vocabulary)
    # RecursionError: JSON nested too deeply
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a token file of this package: {error}; {REMEDY}") from error
    return stored, vocabulary, config


def _check_members(stored: Mapping[str, NDArray[Any]], vocabulary: Vocabulary) -> None:
    """Compare all small members with what the vocabulary says of them.

    Raises:
        ValueError: if one contradicts it, or the descriptions of samples or fields do not fit together.
    """
    for key, array in vocabulary.arrays().items():
        found = stored[key]
        if found.shape != array.shape or found.dtype.kind != array.dtype.kind:
            raise ValueError(f"{key} has shape {found.shape} and type {found.dtype}")
        # Which code is the nearest may be a matter of rounding: of the tables only the range is compared.
        is_table = key.startswith(TABLE)
        if not is_table and not np.array_equal(found, array):
            raise ValueError(f"{key} does not follow from the codebooks and the codes in use")
        if is_table and found.size:
            k = int(key.removeprefix(TABLE))
            first, size = int(vocabulary.scale_offsets[k]), int(vocabulary.scale_vocab_sizes[k])
            if found.min() < first or found.max() >= first + size:
                raise ValueError(f"{key} holds tokens outside {first}..{first + size - 1}")
    for group, kinds in ((OF_SAMPLES, "iuf"), (OF_FIELDS, "Uf")):
        arrays = [stored[key] for key in group if key in stored]
        if any(a.ndim != 1 or a.shape != arrays[0].shape or a.dtype.kind not in kinds for a in arrays):
            raise ValueError(f"{', '.join(group)} do not fit together")


def _vocabulary(stored: dict[str, NDArray[Any]], config: Mapping[str, Any]) -> Vocabulary:
    """Build the vocabulary that the members of a file describe.

    Raises:
        ValueError: if they describe none.
    """
    scales = stored["scales"]
    if scales.ndim != 2 or scales.shape[1] != 2 or scales.dtype.kind not in "iu" or not scales.size:
        raise ValueError(
            f"scales have shape {scales.shape} and type {scales.dtype}, expected (S, 2) integers"
        )
    if scales.min() < 1 or scales.max() > MAX_SCALE:
        raise ValueError(f"scales lie outside 1..{MAX_SCALE}: {scales.tolist()}")
    count = range(len(scales))
    missing = [key for k in count for key in (f"{CODEBOOK}{k}", f"{TABLE}{k}") if key not in stored]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    books = [stored[f"{CODEBOOK}{k}"] for k in count]
    if any(book.ndim != 2 or book.dtype.kind != "f" or not np.isfinite(book).all() for book in books):
        raise ValueError("the original codebooks are no finite vectors")
    of_scale, original = stored["unified_to_scale"], stored["unified_to_original"]
    if (
        of_scale.ndim != 1
        or of_scale.shape != original.shape
        or {of_scale.dtype.kind, original.dtype.kind} - {*"iu"}
    ):
        raise ValueError("unified_to_scale and unified_to_original do not fit together")
    origin = config.get("provenance")
    digest = origin.get("weights_sha256") if isinstance(origin, dict) else None
    file_digest = origin.get("checkpoint_sha256") if isinstance(origin, dict) else None
    return Vocabulary(
        scales=tuple((int(h), int(w)) for h, w in scales),
        codebooks=tuple(books),
        codes_in_use=tuple(original[of_scale == k].astype(np.int64) for k in count),
        weights_sha256=None if digest is None else str(digest),
        checkpoint_sha256=None if file_digest is None else str(file_digest),
    )


def _check_tokens(path: Path, stored: Mapping[str, NDArray[Any]], vocabulary: Vocabulary) -> None:
    """Refuse tokens that are not of their position's scale.

    Raises:
        ValueError: as said.
    """
    tokens, length = stored["indices_flat"], vocabulary.tokens_per_sample
    if tokens.ndim != 2 or tokens.shape[1] != length or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"{path} is damaged: indices_flat has shape {tokens.shape} and type {tokens.dtype}, expected "
            f"(n, {length}) integers for its scales; {REMEDY}"
        )
    if "time" in stored and len(tokens) != len(stored["time"]):
        raise ValueError(f"{path} is damaged: {len(tokens)} samples, {len(stored['time'])} times; {REMEDY}")
    for k, part in enumerate(vocabulary.split(tokens)):
        first, size = int(vocabulary.scale_offsets[k]), int(vocabulary.scale_vocab_sizes[k])
        if part.size and (part.min() < first or part.max() >= first + size):
            h, w = vocabulary.scales[k]
            raise ValueError(
                f"{path} is damaged: indices_flat holds {part.min()} to {part.max()} at scale {h}x{w}, "
                f"which owns {first} to {first + size - 1}; {REMEDY}"
            )
