"""Splits of trajectories into train, val and test, by groups that start alike.

Files of a parameter sweep often begin with the same random states: a trajectory held out of training would
then start as one in it does.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gust_torch.convert.source import BLOCK_BYTES, Source, cut, open_reader
from solvers.common.splits import SPLITS

WHOLE = "all"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Which trajectory goes where.

    Attributes:
        assignment: (n,) int8, index into `names` of each trajectory in the order of the sources.
        by: What stays together: "group", "trajectory", or "file" where files were split before.
        num_groups: Groups of trajectories that stay together; n where each goes by itself.
    """

    names: tuple[str, ...]
    fractions: tuple[float, ...]
    assignment: np.ndarray
    by: str
    num_groups: int

    def chosen(self, split: str) -> np.ndarray:
        """(n,) bool, trajectories of one split."""
        mask: np.ndarray = self.assignment == self.names.index(split)
        return mask

    @property
    def used(self) -> tuple[str, ...]:
        """Splits with trajectories."""
        return tuple(name for name in self.names if self.chosen(name).any())

    @property
    def empty(self) -> tuple[str, ...]:
        """Splits that were asked for and got no trajectory."""
        wanted = zip(self.names, self.fractions, strict=True)
        return tuple(name for name, fraction in wanted if fraction > 0 and name not in self.used)


def make_splits(
    keys: Sequence[Hashable], fractions: Sequence[float] | None, seed: int, by: str = "trajectory"
) -> Splits:
    """Assign trajectories to train, val and test at random; one split "all" where `fractions` is None.

    Trajectories of one key stay together. Sizes are the fractions rounded by largest remainder, as near as
    the groups allow. As long as there are enough groups, every split with a fraction above zero gets one;
    with fewer, train comes before val and val before test. `by` says what the keys stand for.
    """
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys], int)
    if fractions is None:
        return Splits((WHOLE,), (1.0,), np.zeros(len(keys), np.int8), by, len(numbers))
    order = np.random.default_rng(seed).permutation(len(numbers))
    sizes = np.bincount(groups, minlength=len(numbers))
    # A group goes where its middle falls, behind the groups shuffled before it.
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    of_group = np.empty(len(numbers), np.int8)
    of_group[order] = np.searchsorted(np.cumsum(_sizes(len(keys), fractions)), middles, side="right")
    for index in np.flatnonzero(np.asarray(fractions) > 0):
        counts = np.bincount(of_group, minlength=3)
        if counts[index] == 0 and counts.max() > 1:  # the smallest group of the split that has most
            candidates = [group for group in order[::-1] if of_group[group] == counts.argmax()]
            of_group[min(candidates, key=lambda group: int(sizes[group]))] = index
    return Splits(SPLITS, tuple(map(float, fractions)), of_group[groups], by, len(numbers))


def _sizes(total: int, fractions: Sequence[float]) -> np.ndarray:
    """(3,) integers that sum to `total`."""
    wished = np.asarray(fractions) * total
    sizes = np.floor(wished + 1e-9).astype(int)
    sizes[np.argsort(sizes - wished, kind="stable")[: total - sizes.sum()]] += 1
    for index in np.flatnonzero((np.asarray(fractions) > 0) & (sizes == 0)):
        if sizes.max() > 1:
            sizes[sizes.argmax()] -= 1
            sizes[index] += 1
    return sizes


def keep_splits(names: Sequence[str], keys: Sequence[Hashable]) -> Splits:
    """Leave trajectories in the splits `names` that they are in; `keys` are their groups, for the record."""
    assignment = np.array([SPLITS.index(name) for name in names], np.int8)
    seen = {key for key, name in zip(keys, names, strict=True) if name == SPLITS[0]}
    if shared := sum(key in seen for key, name in zip(keys, names, strict=True) if name != SPLITS[0]):
        logger.warning("%d trajectories of val and test start as one of train does", shared)
    shares = tuple(float((assignment == index).mean()) for index in range(len(SPLITS)))
    return Splits(SPLITS, shares, assignment, "file", len(set(keys)))


def trajectory_keys(sources: Sequence[Source]) -> tuple[list[Hashable], list[Hashable]]:
    """Keys of trajectories, in the order of the sources, that start alike; and that are alike throughout.

    Trajectories are compared by their first frames, to the bit: by the fields that the family names. Where
    these are the same everywhere in space, and say nothing, the middle and the last frame decide.

    Raises:
        ValueError: Two sources hold one trajectory, or a periodic axis one point twice.
    """
    for source in sources:
        _refuse_repeated_points(source)
    starts = [_digests(source, [0], source.family.start_fields) for source in sources]
    counts = Counter(digest for found in starts for digest, _ in found)
    groups: list[Hashable] = []
    repeats: list[Hashable] = []
    seen: dict[bytes, tuple[Source, int]] = {}
    for source, found in zip(sources, starts, strict=True):
        is_shared = any(counts[digest] > 1 for digest, _ in found)
        wholes = _digests(source, _three_times(source)) if is_shared else found
        copies = []
        for index, ((digest, is_flat), (whole, says_nothing)) in enumerate(zip(found, wholes, strict=True)):
            if counts[digest] == 1:
                whole, says_nothing = digest, True
            groups.append(whole if is_flat else digest)
            repeats.append(whole)
            first, other = seen.setdefault(whole, (source, index))
            is_first = first is source and other == index
            if is_first or says_nothing or not _are_equal(first, other, source, index):
                continue
            if first is not source:
                raise ValueError(
                    f"{source.path}: sample {source.samples[index]} is the same data as sample "
                    f"{first.samples[other]} of {first.path}; remove the copy, or leave it out (--pattern)"
                )
            copies.append(f"sample {source.samples[index]} is sample {source.samples[other]}")
        if copies:
            logger.warning("%s: %d trajectories repeat others (%s)", source.path, len(copies), copies[0])
    return groups, repeats


def _three_times(source: Source) -> list[int]:
    """First, middle and last time."""
    num = source.times.shape[1]
    return sorted({0, num // 2, num - 1})


def _digests(source: Source, times: Sequence[int], names: Sequence[str] = ()) -> list[tuple[bytes, bool]]:
    """Digest of some frames of each trajectory, and whether all are flat; of all or named fields."""
    found: list[tuple[bytes, bool]] = []
    with open_reader(source) as read:
        for n in cut(len(source.samples), source.frame_bytes, source.chunk[0]):
            digests = [hashlib.blake2b(digest_size=16) for _ in source.samples[n]]
            are_flat = [True] * len(digests)
            for time in times:
                block = read(n, slice(time, time + 1))
                for values in (block[name] for name in names or block):
                    for index, frame in enumerate(values[:, 0]):
                        digests[index].update(np.ascontiguousarray(frame).data)
                        are_flat[index] &= bool((frame == frame[:1, :1]).all())
            found += zip((digest.digest() for digest in digests), are_flat, strict=True)
    return found


def _are_equal(first: Source, i: int, other: Source, j: int) -> bool:
    """Whether two trajectories, alike in three frames, are alike in all."""
    num = first.times.shape[1]
    if num != other.times.shape[1]:
        return False
    with open_reader(first) as one, open_reader(other) as two:
        for t in cut(num, first.frame_bytes, first.chunk[1]):
            mine, copy = one(slice(i, i + 1), t), two(slice(j, j + 1), t)
            if not all(np.array_equal(mine[name], copy[name]) for name in mine):
                return False
    return True


def _refuse_repeated_points(source: Source) -> None:
    """Refuse a periodic axis whose last point is the first one again, at three times.

    PDEBench's initial states repeat it, on cells that are all different: states alone prove nothing.
    """
    times, grid = _three_times(source), source.grid
    some = slice(0, min(len(source.samples), max(1, BLOCK_BYTES // source.frame_bytes)))
    axes = [axis for axis in (0, 1) if grid.boundary[axis] == "periodic" and len((grid.x, grid.y)[axis]) > 3]
    with open_reader(source) as read:
        for time in times:
            fields = read(some, slice(time, time + 1)) if axes and len(times) == 3 else {}
            axes = [axis for axis in axes if fields and _repeats(fields, axis + 2)]
    if axes:
        raise ValueError(
            f"{source.path}: the last point along {'xy'[axes[0]]} repeats the first, on a periodic axis; "
            "leave it out of fields and coordinates"
        )


def _repeats(fields: Mapping[str, np.ndarray], axis: int) -> bool:
    """Whether the outer points of fields (n, 1, x, y[, c]) are equal on an axis, and their neighbors not.

    States that are symmetric about the end of the domain have equal outer points too, but then also the next.
    """
    gaps = np.zeros(3)
    for values in fields.values():
        first, second, before, last = np.take(values, [0, 1, -2, -1], axis=axis).swapaxes(0, axis)
        scale = max(np.std(values, dtype=np.float64), 1e-300)
        pairs = (last - first, second - first, last - before)
        gaps = np.maximum(gaps, [float(np.abs(pair).max()) / scale for pair in pairs])
    return bool(gaps[0] <= 1e-5 and gaps[1:].min() > 1e-3)
