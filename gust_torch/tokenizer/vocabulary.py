"""The unified vocabulary: one number for every code in use, whatever its scale.

A multi-scale quantizer has one codebook of K_k vectors for each scale k, and data rarely use all of them. The
vocabulary gives each scale a contiguous range and numbers the codes in use consecutively inside it:

    unified = scale_offsets[k] + rank of the code among the codes in use at scale k.

An autoregressive model then has `effective_vocab_size` classes and an embedding table without dead rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Members of a token file that exist for each scale; its number follows.
CODEBOOK, TABLE = "original_codebook_scale_", "scale_old_to_unified_"

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Which codes of each scale are in use, and their unified numbers.

    Attributes:
        scales: (h_k, w_k) of each scale, coarse to fine.
        codebooks: (K_k, d) float32 vectors of each scale, as the decoder uses them.
        codes_in_use: (n_k,) ascending original code numbers of each scale, at least one.
        weights_sha256: digest of the model whose codes they are; None where that is not known.
        checkpoint_sha256: of that model's checkpoint; None where that is not known.
    """

    scales: tuple[tuple[int, int], ...]
    codebooks: tuple[FloatArray, ...]
    codes_in_use: tuple[IntArray, ...]
    weights_sha256: str | None = None
    checkpoint_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check that codebooks and codes in use fit together, scale by scale."""
        for (h, w), book, codes in zip(self.scales, self.codebooks, self.codes_in_use, strict=True):
            if book.ndim != 2 or book.shape[1] != self.codebooks[0].shape[1]:
                raise ValueError(f"scale {h}x{w}: expected a codebook (K, d) with the d of the others")
            if codes.size == 0:
                raise ValueError(f"scale {h}x{w} has no code in use; fit it on at least one sample")
            if codes[0] < 0 or codes[-1] >= len(book) or np.any(np.diff(codes) <= 0):
                raise ValueError(f"scale {h}x{w}: codes in use must ascend within 0..{len(book) - 1}")

    @classmethod
    def from_counts(
        cls,
        scales: Sequence[tuple[int, int]],
        codebooks: Sequence[FloatArray],
        counts: Sequence[NDArray[np.int64]],
    ) -> Vocabulary:
        """Build the vocabulary of the codes that occur, from S `counts` (K_k,) of how often each one did."""
        in_use = tuple(np.flatnonzero(count).astype(np.int32) for count in counts)
        return cls(tuple((int(h), int(w)) for h, w in scales), tuple(codebooks), in_use)

    @property
    def numbers(self) -> range:
        """Numbers k of the scales."""
        return range(len(self.scales))

    @property
    def tokens_per_sample(self) -> int:
        """L = sum over scales of h_k w_k."""
        return self.boundaries[-1]

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """(S + 1,) first position of each scale in the flat token sequence, then L."""
        return (0, *np.cumsum([h * w for h, w in self.scales]).tolist())

    @cached_property
    def scale_vocab_sizes(self) -> NDArray[np.int64]:
        """(S,) codes in use at each scale."""
        return np.array([len(codes) for codes in self.codes_in_use], dtype=np.int64)

    @cached_property
    def scale_offsets(self) -> NDArray[np.int64]:
        """(S,) first unified number of each scale."""
        return np.cumsum(self.scale_vocab_sizes) - self.scale_vocab_sizes

    @property
    def effective_vocab_size(self) -> int:
        """V, the number of unified tokens."""
        return int(self.scale_vocab_sizes.sum())

    @cached_property
    def unified_to_scale(self) -> IntArray:
        """(V,) scale of each unified token."""
        return np.repeat(np.arange(len(self.scales), dtype=np.int32), self.scale_vocab_sizes)

    @cached_property
    def unified_to_original(self) -> IntArray:
        """(V,) code number of each unified token in the codebook of its scale."""
        return np.concatenate(self.codes_in_use).astype(np.int32)

    @cached_property
    def codebook(self) -> FloatArray:
        """(V, d) vector of each unified token, exactly the row that the decoder looks up."""
        rows = [book[codes] for book, codes in zip(self.codebooks, self.codes_in_use, strict=True)]
        return np.concatenate(rows).astype(np.float32)

    @cached_property
    def old_to_unified(self) -> tuple[IntArray, ...]:
        """S tables (K_k,), original code -> unified token.

        A code that is not in use maps to the nearest code in use at its scale (Euclidean), so that no token
        is ever out of range; `unified_to_original[table[i]] == i` holds just for the codes in use.
        """
        tables = []
        for book, codes, offset in zip(self.codebooks, self.codes_in_use, self.scale_offsets, strict=True):
            table = nearest_rows(book, book[codes]).astype(np.int32)
            # Equal rows would make the nearest one ambiguous: a code in use always stands for itself.
            table[codes] = np.arange(len(codes), dtype=np.int32)
            tables.append(table + np.int32(offset))
        return tuple(tables)

    @property
    def first_trainable_scale(self) -> int:
        """Index of the first scale with more than one code in use; S when there is none.

        The scales before it are constant, so an autoregressive model need not predict them.
        """
        several = np.flatnonzero(self.scale_vocab_sizes > 1)
        return int(several[0]) if several.size else len(self.scales)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a token file says of the vocabulary, by the documented keys."""
        arrays: dict[str, NDArray[Any]] = {
            "codebook": self.codebook,
            "effective_vocab_size": np.array(self.effective_vocab_size, dtype=np.int64),
            "vocab_size": np.array(max(len(book) for book in self.codebooks), dtype=np.int64),
            "codebook_dim": np.array(self.codebook.shape[1], dtype=np.int64),
            "scales": np.array(self.scales, dtype=np.int64),
            "scale_offsets": self.scale_offsets,
            "scale_vocab_sizes": self.scale_vocab_sizes,
            "unified_to_scale": self.unified_to_scale,
            "unified_to_original": self.unified_to_original,
            "first_trainable_scale": np.array(self.first_trainable_scale, dtype=np.int64),
        }
        for k, (table, book) in enumerate(zip(self.old_to_unified, self.codebooks, strict=True)):
            arrays[f"{TABLE}{k}"] = table
            arrays[f"{CODEBOOK}{k}"] = np.asarray(book, dtype=np.float32)
        return arrays

    def split(self, flat: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut (n, L) into S views (n, h_k w_k), coarse to fine."""
        return [flat[:, a:b] for a, b in zip(self.boundaries[:-1], self.boundaries[1:], strict=True)]

    def remap(self, codes: NDArray[np.integer[Any]]) -> list[IntArray]:
        """Turn original codes (n, L) into S arrays (n, h_k w_k) of unified tokens."""
        return [table[part] for table, part in zip(self.old_to_unified, self.split(codes), strict=True)]

    def describe_unseen(self, unseen: Sequence[int], num_samples: int) -> list[str]:
        """Return a line for each scale where some of its `unseen` (S,) tokens had a code not in use."""
        return [
            f"scale {h}x{w}: {count} tokens ({count / (num_samples * h * w):.2%}) had a code outside the "
            "vocabulary and took the nearest one in use"
            for (h, w), count in zip(self.scales, unseen, strict=True)
            if count
        ]

    def require_codebooks(self, codebooks: Sequence[FloatArray], *, source: str) -> None:
        """Refuse, naming scales, a model whose codebooks are not those of this vocabulary, from `source`."""
        names = [f"{h}x{w}" for h, w in self.scales]
        equal = map(np.array_equal, self.codebooks, codebooks)
        other = [name for name, same in zip(names, equal, strict=False) if not same]
        if other or len(codebooks) != len(self.codebooks):
            text = f"{source} was made with another codebook (of scales {', '.join(other or names)})"
            raise ValueError(f"{text}; use the checkpoint that made it, or fit a new vocabulary")


def nearest_rows(vectors: FloatArray, candidates: FloatArray) -> NDArray[np.int64]:
    """Return the index (n,) of the nearest of m candidates (m, d) of each vector (n, d), the lowest in a tie.

    argmin_j |c_j|^2/2 - <v, c_j>, in float64.
    """
    exact = candidates.astype(np.float64)
    half_norm = 0.5 * np.sum(exact**2, axis=1)
    return np.argmin(half_norm - vectors.astype(np.float64) @ exact.T, axis=1)
