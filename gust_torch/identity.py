"""What data a file was made from, and whether other data contradict it. Free of torch and of files."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

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


class Samples(Protocol):
    """A dataset of arrays or tensors."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def spec_identity(spec: FieldSpec | GraphSpec) -> dict[str, Any]:
    """Return what a spec says, under the names that `differences` shows."""
    values = spec.to_dict()
    if "names" in values:
        values["fields"] = values.pop("names")
    return values


def content_digest(
    samples: Samples, num_frames: int = DIGEST_FRAMES, values_of: Callable[[Any], Any] = lambda sample: sample
) -> str:
    """sha256 of the values of at most `num_frames` evenly spaced samples, both ends included.

    The storage does not matter: a repacked or moved file keeps its digest.

    Args:
        samples: A dataset.
        num_frames: How many of its samples are read.
        values_of: Gives the numbers of a sample that is no array.
    """
    digest = hashlib.sha256()
    count = len(samples)
    for index in np.unique(np.linspace(0, count - 1, min(count, num_frames)).round().astype(int)):
        values = np.ascontiguousarray(values_of(samples[int(index)]), dtype=np.float32)
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
    scale = np.asarray(there.get("std", 0.0), dtype=float)
    return [
        f"{name}: {_short(there[name])} there, {_short(now[name])} now"
        for name in there
        if name in now and not _same(there[name], now[name], scale if name == "mean" else np.zeros(1))
    ]


def check_same(there: Identity, now: Identity, *, what: str, allow_changed: bool = False) -> None:
    """Compare the data that a file was made from with those at hand.

    Args:
        there: Identity that the file holds.
        now: Identity of the data at hand.
        what: The file, as the message names it.
        allow_changed: Log the differences instead of refusing them.

    Raises:
        ValueError: They contradict each other.
    """
    changed = differences(there, now)
    if not changed:
        return
    text = f"{what} was made from other data ({'; '.join(changed)})"
    if not allow_changed:
        raise ValueError(f"{text}; give the same data and options, or {ALLOW_FLAG} if the change is meant")
    logger.warning("%s; going on, since the change is allowed", text)


def check_spec(
    trained: FieldSpec | GraphSpec,
    found: FieldSpec | GraphSpec,
    *,
    source: str,
    remedy: str = "give data like those of its training",
) -> None:
    """Refuse data whose fields, grid, boundaries or lengths are not those that a model was trained on.

    Args:
        trained: Of the model.
        found: Of the data.
        source: The data's path, for the message.
        remedy: Ends the message.

    Raises:
        ValueError: They differ.
    """
    if isinstance(trained, FieldSpec) and isinstance(found, FieldSpec):
        changed = trained.differences(found)
    else:
        changed = differences(spec_identity(trained), spec_identity(found))
        if type(trained) is not type(found):
            changed = [f"{type(trained).__name__} there, {type(found).__name__} now"]
    if changed:
        raise ValueError(
            f"{source} does not fit the model, which was trained on {'; '.join(changed)}; {remedy}"
        )


def warn_of_scale(
    trained_std: Sequence[float] | np.ndarray,
    found_std: Sequence[float] | np.ndarray,
    names: Sequence[str],
    *,
    source: str,
) -> list[str]:
    """Warn of channels whose standard deviation is more than `SAME_SCALE` times that of training, or less.

    Args:
        trained_std: Of the training data, one value a channel.
        found_std: Of the data at hand.
        names: Of the channels.
        source: The data's path, for the message.

    Returns:
        The names of these channels.
    """
    pairs = zip(names, np.ravel(trained_std), np.ravel(found_std), strict=True)
    other = [(name, there, now) for name, there, now in pairs if not _same_scale(float(there), float(now))]
    for name, there, now in other:
        logger.warning(
            "%s: %s has the standard deviation %.3g, %.3g in training; are these the same values and units?",
            source,
            name,
            now,
            there,
        )
    return [name for name, _, _ in other]


def _same_scale(there: float, now: float) -> bool:
    return there > 0 and 1 / SAME_SCALE <= now / there <= SAME_SCALE


def _same(there: Any, now: Any, scale: np.ndarray) -> bool:
    """Whether two plain values are equal, numbers nearly."""
    if there == now or there is None or now is None:
        return bool(there == now)
    try:
        a, b = np.asarray(there, dtype=float), np.asarray(now, dtype=float)
    except (TypeError, ValueError):
        return bool(there == now)
    if a.shape != b.shape:
        return False
    return bool(np.all(np.abs(a - b) <= SAME_STATISTICS * np.maximum(np.maximum(abs(a), abs(b)), scale)))


def _short(value: Any) -> str:
    """Give a value in at most 60 characters; of a digest the first 12."""
    if isinstance(value, list):
        value = [float(f"{item:.4g}") if isinstance(item, float) else item for item in value]
    text = str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:57]}..."
