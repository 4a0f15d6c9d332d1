"""What a conversion will do: its checked sources, its splits and its targets; nothing is written here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gust_torch.convert.families import Family
from gust_torch.convert.reader import Block
from gust_torch.convert.source import Source, describe_source
from gust_torch.convert.splits import Splits, keep_splits, make_splits, split_manifest
from gust_torch.convert.starts import trajectory_keys
from solvers.common.provenance import provenance


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of every conversion."""

    limit: int | None = None
    """Source files to take, the first by name; all by default."""
    samples: int | None = None
    """Trajectories to take from each file; all by default."""
    splits: tuple[float, float, float] | None = (0.8, 0.1, 0.1)
    """Shares of train, val and test."""
    split_by: Literal["group", "trajectory"] = "group"
    """What a split keeps together: trajectories that start from one state, as sweeps do; or none."""
    seed: int = 0
    """Seed of the split."""
    compression: Literal["lz4", "gzip"] | None = None
    """Smaller and slower to read; none by default."""
    verify: bool = False
    """Compare the outputs with the sources, bit for bit, before they get their names."""
    overwrite: bool = False
    """Replace existing outputs."""

    def __post_init__(self) -> None:
        for name, value in (("limit", self.limit), ("samples", self.samples)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}, expected at least 1; leave it out to take all")
        if self.splits is not None and not (min(self.splits) >= 0 and abs(sum(self.splits) - 1) <= 1e-6):
            raise ValueError(
                f"--splits are {list(self.splits)}, expected three shares of train, val and test that sum to "
                "1; for example --splits 0.8 0.1 0.1"
            )
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}, expected 0 or more")


@dataclass(frozen=True)
class Part:
    """What one output gets of a block, in the form `HDF5Writer.append` takes.

    Attributes:
        fields: name -> (frames, x, y[, c]) float32.
        times: (frames,) float64.
        trajectories: (frames,) int32, ids in that output.
    """

    fields: Mapping[str, np.ndarray]
    times: np.ndarray
    trajectories: np.ndarray


@dataclass(frozen=True)
class Plan:
    """A checked conversion.

    Attributes:
        sources: In the order they are written.
        splits: Split of each trajectory.
        options: What was asked for.
    """

    sources: tuple[Source, ...]
    splits: Splits
    options: Options

    @property
    def family(self) -> Family:
        """Family of all sources."""
        return self.sources[0].family

    @property
    def num_frames(self) -> int:
        """Frames of all sources."""
        return sum(source.num_trajectories * source.num_frames for source in self.sources)

    def route(self, index: int, block: Block, split: str) -> Part | None:
        """Frames of a block of source `index` that belong to `split`; None where there are none."""
        first = int(self._starts[index])
        ids = self._ids[split][first + block.span.first : first + block.span.last]
        chosen = ids >= 0
        if not chosen.any():
            return None
        return Part(
            fields={name: _flatten(values, chosen) for name, values in block.fields.items()},
            times=block.times[chosen].reshape(-1),
            trajectories=np.repeat(ids[chosen], block.times.shape[1]).astype(np.int32),
        )

    @cached_property
    def _ids(self) -> dict[str, np.ndarray]:
        """Split -> id in its output of every trajectory; -1 for other splits."""
        masks = {split: self.splits.chosen(split) for split in self.splits.used}
        return {split: np.where(mask, np.cumsum(mask) - 1, -1) for split, mask in masks.items()}

    @cached_property
    def _starts(self) -> np.ndarray:
        """First trajectory of each source, and their number."""
        return np.cumsum([0, *(source.num_trajectories for source in self.sources)])

    def parameters(self, split: str) -> dict[str, list[float]]:
        """name -> value for each trajectory of one split."""
        chosen = self.splits.chosen(split)
        return {
            name: np.concatenate([source.parameters[name] for source in self.sources])[chosen].tolist()
            for name in self.sources[0].parameters
        }

    def texts(self, split: str) -> dict[str, str | list[str]]:
        """Text datasets of one split's file: source and sample of each trajectory, and the manifest."""
        origins = [(source.name, sample) for source in self.sources for sample in source.samples]
        chosen = [origins[index] for index in np.flatnonzero(self.splits.chosen(split))]
        names, samples = [source.name for source in self.sources], [source.samples for source in self.sources]
        return {
            "trajectories/source": [name for name, _ in chosen],
            "trajectories/sample": [sample for _, sample in chosen],
            "split/manifest": split_manifest(self.splits, names, samples),
        }

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Attributes of /metadata, equal in all outputs."""
        first = self.sources[0]
        metadata: dict[str, str | int | float | bool] = {
            "solver": "pdebench",
            "family": self.family.name,
            "equation": self.family.equation,
            "seed": self.options.seed,
            "split_by": self.splits.by,
            "boundary_x": first.grid.boundary[0],
            "boundary_y": first.grid.boundary[1],
            "boundary_note": self.family.boundary_note,
            "grid_y": "uniform",
            "length_x": first.grid.lengths[0],
            "length_y": first.grid.lengths[1],
            "source_dtype": ", ".join(sorted({source.dtype for source in self.sources})),
            "source_config": first.config,
            **provenance(),
        }
        if self.family.note:
            metadata["note"] = self.family.note
        if (step := time_step(self.sources)) is not None:
            metadata["dt"] = step
        return metadata

    def request(self) -> dict[str, Any]:
        """All that decides what is written: only an equal request continues a conversion."""
        stats = [(source.path, source.path.stat()) for source in self.sources]
        names = ("samples", "splits", "split_by", "seed", "compression")
        return {
            "family": self.family.name,
            "sources": [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats],
            **{name: getattr(self.options, name) for name in names},
        }


def make_plan(
    paths: Sequence[Path],
    family: Family,
    options: Options,
    root: Path | None = None,
    own_splits: Mapping[Path, str] | None = None,
) -> Plan:
    """Check every source and the sources against each other.

    Args:
        paths: Files to convert, before `options.limit`.
        family: Their family.
        options: What to take and how to split it.
        root: Folder that source names are given relative to; the file name alone where None.
        own_splits: Split of each file, where they were split before.

    Raises:
        ValueError: A source that is not as its family has it, does not fit the first, or repeats another one.
    """
    sources = tuple(
        describe_source(path, family, max_samples=options.samples, name=_name(path, root))
        for path in sorted(paths)[: options.limit]
    )
    for source in sources[1:]:
        _check_fits(sources[0], source)
    groups, repeats = trajectory_keys(sources)
    if own_splits is not None:
        names = [own_splits[source.path] for source in sources for _ in source.samples]
        splits = keep_splits(names, groups, options.seed)
    elif options.split_by == "group" and (len(set(groups)) > 1 or options.splits is None):
        splits = make_splits(groups, options.splits, options.seed, "group")
    else:
        splits = make_splits(repeats, options.splits, options.seed, "trajectory")
    return Plan(sources, splits, options)


def time_step(sources: Sequence[Source]) -> float | None:
    """Time between frames, where it is the same everywhere to float32 rounding; None otherwise."""
    steps = np.concatenate([np.diff(source.times[:1], axis=1).ravel() for source in sources])
    if not len(steps) or steps[0] == 0 or not np.allclose(steps, steps[0], rtol=1e-3):
        return None
    return float(f"{np.median(steps):.6g}")


def _flatten(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, t, ...) -> (frames, ...) of the chosen trajectories, without a copy where they are neighbors."""
    positions = np.flatnonzero(chosen)
    first, last = int(positions[0]), int(positions[-1]) + 1
    kept = values[first:last] if last - first == len(positions) else values[chosen]
    return kept.reshape(-1, *values.shape[2:])


def _name(path: Path, root: Path | None) -> str:
    """Name of a source below the root, equal on every machine."""
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.name


def _check_fits(first: Source, source: Source) -> None:
    """Raise ValueError where a source cannot be merged with the first one."""
    different = source.grid.difference(first.grid)
    if not different and source.shapes != first.shapes:
        different = f"frames {dict(source.shapes)} instead of {dict(first.shapes)}"
    if not different and source.family.ups != first.family.ups:
        different = "of another program"
    if not different and source.parameters.keys() != first.parameters.keys():
        different = f"parameters {', '.join(source.parameters)} instead of {', '.join(first.parameters)}"
    if different:
        raise ValueError(
            f"{source.path}: {different}, unlike the first source {first.path.name}; files of different "
            "grids or boundaries do not go into one output: select files that fit with --pattern"
        )
