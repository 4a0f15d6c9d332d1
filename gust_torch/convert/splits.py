"""Splits by trajectory, and the manifest that every output carries."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPLIT_NAMES = ("train", "val", "test")
WHOLE = "all"


@dataclass(frozen=True)
class Splits:
    """Which trajectory goes where.

    Attributes:
        names: Names of the splits, of those with a fraction of zero too.
        fractions: Wished share of each.
        seed: Seed of the shuffle.
        assignment: (n,) int8, index into `names` of each trajectory in the order of the sources.
    """

    names: tuple[str, ...]
    fractions: tuple[float, ...]
    seed: int
    assignment: np.ndarray

    def count(self, index: int) -> int:
        """Trajectories of one split."""
        return int((self.assignment == index).sum())

    @property
    def empty(self) -> tuple[str, ...]:
        """Splits that were asked for and got no trajectory."""
        return tuple(
            name
            for index, (name, fraction) in enumerate(zip(self.names, self.fractions, strict=True))
            if fraction > 0 and self.count(index) == 0
        )


def make_splits(num_trajectories: int, fractions: Sequence[float] | None, seed: int) -> Splits:
    """Assign trajectories to train, val and test at random; one split "all" where `fractions` is None.

    Sizes are the fractions rounded by largest remainder. As long as there are enough trajectories, every
    split with a fraction above zero gets one; with fewer, train comes before val and val before test.

    Args:
        num_trajectories: Trajectories of all sources.
        fractions: Shares of train, val and test, which sum to one.
        seed: Seed of the shuffle.

    Raises:
        ValueError: Fractions that are not three shares of one.
    """
    if fractions is None:
        return Splits((WHOLE,), (1.0,), seed, np.zeros(num_trajectories, np.int8))
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"splits are {list(fractions)}, expected three shares of train, val and test that sum to 1; "
            "for example --splits 0.8 0.1 0.1"
        )
    sizes = _sizes(num_trajectories, fractions)
    assignment = np.empty(num_trajectories, np.int8)
    assignment[np.random.default_rng(seed).permutation(num_trajectories)] = np.repeat(np.arange(3), sizes)
    return Splits(SPLIT_NAMES, tuple(float(fraction) for fraction in fractions), seed, assignment)


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


def split_manifest(splits: Splits, sources: Sequence[str], samples: Sequence[Sequence[str]]) -> str:
    """Return the whole split as JSON text: seed, fractions, sources, and the samples of each source by split.

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
            "splits": assignments,
        }
    )
