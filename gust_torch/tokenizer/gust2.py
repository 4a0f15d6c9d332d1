"""Token files in the layout of gust2 (https://github.com/TACS-UCSC/gust2), written and read.

There one codebook serves all scales, which are squares. `scales` (S,) holds their sides, `original_codebook`
(K, d) all vectors, `new_to_old` (V,) those in use, `old_to_new` (K,) the inverse (-1: not in use),
`scale_masks` (S, V) the tokens of each scale, `indices_scale_{s}` (n, s * s) each scale's share of
`indices_flat`. Our codebooks, put one behind the other, are such a codebook whose masks do not overlap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.tokenizer.vocabulary import CODEBOOK, Vocabulary

GUST2_KEYS = ("original_codebook", "old_to_new", "new_to_old", "scale_masks")


def gust2_arrays(
    tokens: NDArray[np.integer[Any]], vocabulary: Vocabulary, small: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the members of a file in gust2's layout, for unified tokens (n, L) and our other members.

    Raises:
        ValueError: if a scale is no square, or a grid stands twice.
    """
    if oblong := [f"{h}x{w}" for h, w in vocabulary.scales if h != w]:
        raise ValueError(f"gust2's layout has square scales only, not {', '.join(oblong)}; keep our layout")
    if len(set(vocabulary.scales)) < len(vocabulary.scales):
        raise ValueError("gust2's layout has one scale of a size, here a grid stands twice; keep our layout")
    sizes = [len(book) for book in vocabulary.codebooks]
    starts = np.cumsum([0, *sizes[:-1]])
    new_to_old = (starts[vocabulary.unified_to_scale] + vocabulary.unified_to_original).astype(np.int32)
    old_to_new = np.full(sum(sizes), -1, dtype=np.int32)
    old_to_new[new_to_old] = np.arange(len(new_to_old), dtype=np.int32)
    arrays = {
        **small,
        "scales": np.array([h for h, _ in vocabulary.scales], dtype=np.int64),
        "vocab_size": np.array(sum(sizes), dtype=np.int64),
        "original_codebook": np.concatenate(vocabulary.codebooks).astype(np.float32),
        "old_to_new": old_to_new,
        "new_to_old": new_to_old,
        "scale_masks": vocabulary.unified_to_scale == np.arange(len(sizes))[:, None],
        "indices_flat": tokens,
    }
    for (h, _), part in zip(vocabulary.scales, vocabulary.split(tokens), strict=True):
        arrays[f"indices_scale_{h}"] = part
    return arrays


def read_gust2(stored: Mapping[str, NDArray[Any]], format_version: int) -> dict[str, NDArray[Any]]:
    """Turn members in gust2's layout into ours; each scale gets a range of tokens of its own.

    Files of gust2 itself know no times, trajectories and fields. `format_version` is of our layout.

    Raises:
        ValueError: if members are missing or contradict each other.
    """
    pairs = np.stack([stored["scales"]] * 2, axis=1).astype(np.int64)
    if sizes := [len(book) for key, book in stored.items() if key.startswith(CODEBOOK)]:  # ours, exported
        rest = {key: array for key, array in stored.items() if key not in GUST2_KEYS}
        return {**rest, "scales": pairs, "vocab_size": np.array(max(sizes), dtype=np.int64)}
    book, tokens = stored["original_codebook"], stored["indices_flat"]
    masks, new_to_old = stored["scale_masks"], stored["new_to_old"]
    ends, size = np.cumsum(pairs.prod(axis=1)), len(new_to_old)
    if masks.shape != (len(pairs), size) or masks.dtype.kind != "b":
        raise ValueError(f"scale_masks {masks.shape} and new_to_old {new_to_old.shape} do not fit together")
    if tokens.shape != (len(tokens), ends[-1]):
        raise ValueError(f"indices_flat has shape {tokens.shape}, expected (n, {ends[-1]}) for its scales")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < size:
        raise ValueError(f"indices_flat holds {tokens.min()} to {tokens.max()}, of {size} tokens")
    codes = new_to_old[tokens]
    # What occurs counts too: the masks of a file with a reused vocabulary are another file's.
    parts = np.split(codes, ends[:-1], axis=1)
    in_use = [np.union1d(new_to_old[mask], part) for mask, part in zip(masks, parts, strict=True)]
    vocabulary = Vocabulary(
        scales=tuple((int(h), int(w)) for h, w in pairs),
        codebooks=(book.astype(np.float32),) * len(pairs),
        codes_in_use=tuple(codes.astype(np.int32) for codes in in_use),
    )
    config = {"format_version": format_version, "architecture": json.loads(str(stored["config_json"]))}
    return {
        **vocabulary.arrays(),
        "indices_flat": np.concatenate(vocabulary.remap(codes), axis=1),
        "config_json": np.array(json.dumps({**config, "provenance": {"layout": "gust2"}})),
    }
