"""What data a file was made from, and whether other data contradict it. Free of torch and of files."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gust_torch.graph_spec import GraphSpec
from gust_torch.spec import FieldSpec

logger = logging.getLogger(__name__)

Identity = Mapping[str, Any]
"""Plain values by names that a user knows: `fields`, `lengths`, `std`, ...; checkpoints hold it. What has no
counterpart on the other side is not compared."""

IDENTITY_KEY = "gust_torch_data"
"""Entry of a training checkpoint that holds the identity of its data."""
ALLOW_FLAG = "--data.allow_changed true"
SAME_SCALE = 3.0
"""Standard deviations that differ by more than this factor are said to be of other values or units."""
SAME_STATISTICS = 1e-4
"""Relative difference within which statistics, computed anew on maybe another processor, are the same."""
DIGEST_FRAMES = 8


def evenly_spaced(num_samples: int, max_samples: int) -> list[int]:
    """At most `max_samples` distinct indices from 0 to num_samples - 1, evenly spaced, both ends included."""
    places = np.linspace(0, num_samples - 1, min(num_samples, max_samples))
    return np.unique(places.round().astype(np.int64)).tolist()


def spec_identity(spec: FieldSpec | GraphSpec) -> dict[str, Any]:
    """Return what a spec says, under the names that `differences` shows."""
    return {"fields" if name == "names" else name: value for name, value in spec.to_dict().items()}


def content_digest(samples: Any, values_of: Callable[[Any], Any] = lambda sample: sample) -> str:
    """sha256 of the values of some evenly spaced samples, both ends included.

    The storage does not matter: a repacked or moved file keeps its digest. `values_of` gives the numbers of a
    sample that is no array.
    """
    digest = hashlib.sha256()
    for index in evenly_spaced(len(samples), DIGEST_FRAMES):
        values = np.ascontiguousarray(values_of(samples[index]), dtype=np.float32)
        digest.update(str(values.shape).encode())
        digest.update(values.data)
    return digest.hexdigest()


def indices_digest(indices: Iterable[int] | np.ndarray) -> str:
    """sha256 of sample numbers."""
    values = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices), dtype="<i8")
    return hashlib.sha256(values.tobytes()).hexdigest()


def differences(there: Identity, now: Identity) -> list[str]:
    """Describe what of the data is different now: "lengths: [1.0, 1.0] there, [2.0, 1.0] now".

    Numbers are the same within `SAME_STATISTICS`; a mean also where it differs by little of the `std`.
    """
    return [
        f"{name}: {_short(there[name])} there, {_short(now[name])} now"
        for name in there
        if name in now and not _same(there[name], now[name], there.get("std", 0) if name == "mean" else 0)
    ]


def check_same(there: Identity, now: Identity, *, what: str, allow_changed: bool = False) -> None:
    """Refuse data that are not those of a file (`what`), or log the differences where these are allowed."""
    changed = differences(there, now)
    if not changed:
        return
    text = f"{what} was made from other data ({'; '.join(changed)})"
    if not allow_changed:
        raise ValueError(f"{text}; give the same data and options, or {ALLOW_FLAG} if the change is meant")
    logger.warning("%s; going on, since the change is allowed", text)


def warn_of_scale(
    trained_std: Sequence[float] | np.ndarray,
    found_std: Sequence[float] | np.ndarray,
    names: Sequence[str],
    *,
    source: str,
) -> list[str]:
    """Warn of channels whose standard deviation is more than `SAME_SCALE` times that of training, or less.

    Both are one value a channel; the message names the data by `source`. Returns the names of these channels.
    """
    other = []
    for name, there, now in zip(names, np.ravel(trained_std), np.ravel(found_std), strict=True):
        if not (there > 0 and 1 / SAME_SCALE <= now / there <= SAME_SCALE):
            text = f"%s: %s has the standard deviation {now:.3g}, {there:.3g} in training; %s"
            logger.warning(text, source, name, "are these the same values and units?")
            other.append(name)
    return other


def _same(there: Any, now: Any, scale: Any) -> bool:
    """Whether two plain values are equal, numbers nearly."""
    if there == now or isinstance(there, str):
        return bool(there == now)
    try:
        a, b = np.asarray(there, dtype=float), np.asarray(now, dtype=float)
        largest = np.maximum(np.maximum(abs(a), abs(b)), scale)
        return a.shape == b.shape and bool(np.all(abs(a - b) <= SAME_STATISTICS * largest))
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    """Give a value in at most 60 characters; of a digest the first 12."""
    if isinstance(value, list):
        value = [float(f"{item:.4g}") if isinstance(item, float) else item for item in value]
    text = str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:57]}..."
