"""Splits of trajectories into train, val and test, by groups that start alike."""

import json
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from solvers.common.splits import SPLITS

WHOLE = "all"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Which trajectory goes where.

    Attributes:
        names: Names of the splits, of those with a fraction of zero too.
        fractions: Wished share of each.
        seed: Seed of the shuffle.
        assignment: (n,) int8, index into `names` of each trajectory in the order of the sources.
        by: What stays together: "group", "trajectory", or "file" where files were split before.
        num_groups: Groups of trajectories that stay together; n where each goes by itself.
    """

    names: tuple[str, ...]
    fractions: tuple[float, ...]
    seed: int
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
    with fewer, train comes before val and val before test.

    Args:
        keys: Group of each trajectory.
        fractions: Shares of train, val and test, which sum to one.
        seed: Seed of the shuffle.
        by: What the keys stand for.
    """
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys], int)
    if fractions is None:
        return Splits((WHOLE,), (1.0,), seed, np.zeros(len(keys), np.int8), by, len(numbers))
    order = np.random.default_rng(seed).permutation(len(numbers))
    sizes = np.bincount(groups, minlength=len(numbers))
    # A group goes where its middle falls, behind the groups shuffled before it.
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    of_group = np.empty(len(numbers), np.int8)
    of_group[order] = np.searchsorted(np.cumsum(_sizes(len(keys), fractions)), middles, side="right")
    _fill(of_group, sizes, order, fractions)
    return Splits(SPLITS, tuple(map(float, fractions)), seed, of_group[groups], by, len(numbers))


def keep_splits(names: Sequence[str], keys: Sequence[Hashable], seed: int) -> Splits:
    """Leave trajectories in the splits that they are in.

    Args:
        names: Split of each trajectory.
        keys: Group of each, for the record.
        seed: Likewise.
    """
    assignment = np.array([SPLITS.index(name) for name in names], np.int8)
    seen = {key for key, name in zip(keys, names, strict=True) if name == SPLITS[0]}
    if shared := sum(key in seen for key, name in zip(keys, names, strict=True) if name != SPLITS[0]):
        logger.warning("%d trajectories of val and test start as one of train does", shared)
    shares = tuple(float((assignment == index).mean()) for index in range(len(SPLITS)))
    return Splits(SPLITS, shares, seed, assignment, "file", len(set(keys)))


def _sizes(total: int, fractions: Sequence[float]) -> np.ndarray:
    """(3,) integers that sum to `total`."""
    wished = np.asarray(fractions) * total
    sizes = np.floor(wished + 1e-9).astype(int)
    for index in np.argsort(sizes - wished, kind="stable")[: total - sizes.sum()]:
        sizes[index] += 1
    for index in np.flatnonzero((np.asarray(fractions) > 0) & (sizes == 0)):
        if sizes.max() > 1:
            sizes[sizes.argmax()] -= 1
            sizes[index] += 1
    return sizes


def _fill(of_group: np.ndarray, sizes: np.ndarray, order: np.ndarray, fractions: Sequence[float]) -> None:
    """Give a wanted split that is empty the smallest group of the split that has most."""
    for index in np.flatnonzero(np.asarray(fractions) > 0):
        counts = np.bincount(of_group, minlength=3)
        if counts[index] == 0 and counts.max() > 1:
            candidates = [group for group in order[::-1] if of_group[group] == counts.argmax()]
            of_group[min(candidates, key=lambda group: int(sizes[group]))] = index


def split_manifest(splits: Splits, sources: Sequence[str], samples: Sequence[Sequence[str]]) -> str:
    """Return the whole split as JSON text: how it was drawn, and the samples of each source by split.

    Args:
        splits: The assignment.
        sources: Name of each source.
        samples: Sample keys of each source; together they are the trajectories in order.
    """
    bounds = np.cumsum([0, *(len(keys) for keys in samples)])
    assignments: dict[str, dict[str, list[str]]] = {}
    for index, name in enumerate(splits.names):
        assignments[name] = {}
        for source, keys, start in zip(sources, samples, bounds[:-1], strict=True):
            chosen = np.flatnonzero(splits.assignment[start : start + len(keys)] == index)
            assignments[name][source] = [keys[int(position)] for position in chosen]
    return json.dumps(
        {
            "seed": splits.seed,
            "fractions": dict(zip(splits.names, splits.fractions, strict=True)),
            "split_by": splits.by,
            "num_groups": splits.num_groups,
            "splits": assignments,
        }
    )
