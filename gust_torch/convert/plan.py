"""What a conversion will do: its checked sources, its splits and its targets; nothing is written here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gust_torch.convert.families import Family
from gust_torch.convert.source import Source, describe_source
from gust_torch.convert.splits import Splits, make_splits, split_manifest
from solvers.common.provenance import provenance


@dataclass(frozen=True)
class Options:
    """Settings of a conversion that change what is written.

    Attributes:
        limit: Source files taken, the first in order of name; None for all.
        samples: Trajectories taken from each file, the first; None for all.
        fractions: Shares of train, val and test; None for one file with everything.
        seed: Seed of the split.
        compression: None, "lz4" or "gzip".
    """

    limit: int | None = None
    samples: int | None = None
    fractions: tuple[float, float, float] | None = (0.8, 0.1, 0.1)
    seed: int = 0
    compression: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("limit", self.limit), ("samples", self.samples)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}, expected at least 1; leave it out to take all")


@dataclass(frozen=True)
class Plan:
    """A checked conversion.

    Attributes:
        family: Family of all sources.
        sources: In the order they are written.
        splits: Split of each trajectory.
        targets: Split name -> output file, for splits that have trajectories.
        unused: Files that splits without trajectories would have; none may be left of an earlier conversion.
        options: What was asked for.
    """

    family: Family
    sources: tuple[Source, ...]
    splits: Splits
    targets: Mapping[str, Path]
    unused: tuple[Path, ...]
    options: Options

    @property
    def num_frames(self) -> int:
        """Frames of all sources."""
        return sum(source.num_trajectories * source.num_frames for source in self.sources)

    def trajectory_ids(self, index: int, split: str) -> np.ndarray:
        """(n,) id in the output of `split` of each trajectory of source `index`; -1 for other splits."""
        return self._ids[split][self._starts[index] : self._starts[index + 1]]

    @cached_property
    def _ids(self) -> dict[str, np.ndarray]:
        """Split -> id in its output of every trajectory; -1 for other splits."""
        return {
            split: np.where(self._chosen(split), np.cumsum(self._chosen(split)) - 1, -1)
            for split in self.targets
        }

    @cached_property
    def _starts(self) -> np.ndarray:
        """First trajectory of each source, and their number."""
        return np.cumsum([0, *(source.num_trajectories for source in self.sources)])

    def manifest(self) -> str:
        """JSON text of the split."""
        return split_manifest(
            self.splits, [source.name for source in self.sources], [source.samples for source in self.sources]
        )

    def parameters(self, split: str) -> dict[str, list[float]]:
        """name -> value for each trajectory of one split."""
        chosen = self._chosen(split)
        return {
            parameter.name: np.concatenate([source.parameters[parameter.name] for source in self.sources])[
                chosen
            ].tolist()
            for parameter in self.family.parameters
        }

    def texts(self, split: str) -> dict[str, str | list[str]]:
        """Text datasets of one split's file: source and sample of each trajectory, and the manifest."""
        origins = [(source.name, sample) for source in self.sources for sample in source.samples]
        chosen = [origins[index] for index in np.flatnonzero(self._chosen(split))]
        return {
            "trajectories/source": [name for name, _ in chosen],
            "trajectories/sample": [sample for _, sample in chosen],
            "split/manifest": self.manifest(),
        }

    def _chosen(self, split: str) -> np.ndarray:
        """(n,) bool, trajectories of one split."""
        return self.splits.assignment == self.splits.names.index(split)

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Attributes of /metadata, equal in all outputs."""
        first = self.sources[0]
        dtypes = sorted({source.dtype for source in self.sources})
        metadata: dict[str, str | int | float | bool] = {
            "solver": "pdebench",
            "family": self.family.name,
            "equation": self.family.equation,
            "seed": self.options.seed,
            "boundary_x": first.grid.boundary[0],
            "boundary_y": first.grid.boundary[1],
            "boundary_note": self.family.boundary_note,
            "grid_y": "uniform",
            "length_x": first.grid.lengths[0],
            "length_y": first.grid.lengths[1],
            "source_dtype": ", ".join(dtypes),
            "source_config": first.config,
            **provenance(),
        }
        if self.family.note:
            metadata["note"] = self.family.note
        if (step := time_step(self.sources)) is not None:
            metadata["dt"] = step
        return metadata

    def request(self) -> str:
        """All that decides what is written, as JSON text: only an equal request continues a conversion."""
        files = [
            (str(source.path), source.path.stat().st_size, source.path.stat().st_mtime_ns)
            for source in self.sources
        ]
        options = {
            name: getattr(self.options, name) for name in ("samples", "fractions", "seed", "compression")
        }
        return json.dumps({"family": self.family.name, "sources": files, **options})


def make_plan(
    paths: Sequence[Path],
    family: Family,
    options: Options,
    targets: Mapping[str, Path],
    root: Path | None = None,
) -> Plan:
    """Check every source and the sources against each other.

    Args:
        paths: Files to convert, before `options.limit`.
        family: Their family.
        options: What to take and how to split it.
        targets: Split name -> output file.
        root: Folder that source names are given relative to; the file name alone where None.

    Raises:
        ValueError: A source that is not as its family has it, or does not fit the first.
    """
    sources = tuple(
        describe_source(path, family, max_samples=options.samples, name=_name(path, root))
        for path in sorted(paths)[: options.limit]
    )
    for source in sources[1:]:
        _check_fits(sources[0], source)
    splits = make_splits(sum(source.num_trajectories for source in sources), options.fractions, options.seed)
    used = {name: targets[name] for index, name in enumerate(splits.names) if splits.count(index)}
    unused = tuple(targets[name] for name in splits.names if name not in used)
    return Plan(family, sources, splits, used, unused, options)


def time_step(sources: Sequence[Source]) -> float | None:
    """Time between frames, where it is the same everywhere to float32 rounding; None otherwise."""
    steps = np.concatenate([np.diff(source.times[:1], axis=1).ravel() for source in sources])
    if not len(steps) or steps[0] == 0 or not np.allclose(steps, steps[0], rtol=1e-3):
        return None
    return float(f"{np.median(steps):.6g}")


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
    if different:
        raise ValueError(
            f"{source.path}: {different}, unlike the first source {first.path.name}; files of different "
            "grids or boundaries do not go into one output: select files that fit with --pattern"
        )
