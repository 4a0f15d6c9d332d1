"""Converts grids to the common HDF5 format: checked first, streaming, resumable, verified on request."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gust_torch.convert.families import Family
from gust_torch.convert.output import Options, Result, publish, workspace
from gust_torch.convert.source import Source, describe_source, open_reader, plan_spans
from gust_torch.convert.splits import Splits, keep_splits, make_splits, trajectory_keys
from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, validate
from solvers.common.progress import Interrupt, Progress
from solvers.common.provenance import provenance
from solvers.common.stage import Stage

logger = logging.getLogger(__name__)

Part = tuple[str, dict[str, np.ndarray], np.ndarray, np.ndarray]
"""Split, fields (frames, x, y[, c]) float32, times (frames,) float64 and ids (frames,) of one block of it."""


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
    def num_frames(self) -> int:
        """Frames of all sources."""
        return sum(source.times.size for source in self.sources)

    @cached_property
    def _ids(self) -> np.ndarray:
        """(n,) int32, id of each trajectory in its output."""
        ids = np.empty(len(self.splits.assignment), np.int32)
        for split in self.splits.used:
            mask = self.splits.chosen(split)
            ids[mask] = np.arange(mask.sum())
        return ids

    def parts(self, index: int) -> Iterator[Part]:
        """All frames of source `index`, block by block, each divided among the splits."""
        source = self.sources[index]
        start = sum(other.num_trajectories for other in self.sources[:index])
        with open_reader(source) as read:
            for span in plan_spans(source):
                fields = read(span)
                times = source.times[span.first : span.last, span.start : span.stop]
                here = slice(start + span.first, start + span.last)
                for split in self.splits.used:
                    if (chosen := self.splits.chosen(split)[here]).any():
                        ids = np.repeat(self._ids[here][chosen], times.shape[1])
                        parts = {name: _flatten(values, chosen) for name, values in fields.items()}
                        yield split, parts, times[chosen].reshape(-1), ids

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
        assigned = {
            name: [origins[index] for index in np.flatnonzero(self.splits.chosen(name))]
            for name in self.splits.names
        }
        manifest = {
            "seed": self.options.seed,
            "fractions": dict(zip(self.splits.names, self.splits.fractions, strict=True)),
            "split_by": self.splits.by,
            "num_groups": self.splits.num_groups,
            "splits": {
                name: {
                    each.name: [key for source, key in chosen if source == each.name] for each in self.sources
                }
                for name, chosen in assigned.items()
            },
        }
        return {
            "trajectories/source": [source for source, _ in assigned[split]],
            "trajectories/sample": [sample for _, sample in assigned[split]],
            "split/manifest": json.dumps(manifest),
        }

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Attributes of /metadata, equal in all outputs."""
        family, grid = self.sources[0].family, self.sources[0].grid
        step = time_step(self.sources)
        return {
            "solver": "pdebench",
            "family": family.name,
            "equation": family.equation,
            "seed": self.options.seed,
            "split_by": self.splits.by,
            "boundary_x": grid.boundary[0],
            "boundary_y": grid.boundary[1],
            "boundary_note": family.boundary_note,
            "grid_y": "uniform",
            "length_x": grid.lengths[0],
            "length_y": grid.lengths[1],
            "source_dtype": ", ".join(sorted({source.dtype for source in self.sources})),
            "source_config": self.sources[0].config,
            **provenance(),
            **({"note": family.note} if family.note else {}),
            **({} if step is None else {"dt": step}),
        }

    def request(self) -> dict[str, Any]:
        """All that decides what is written: only an equal request continues a conversion."""
        stats = [(source.path, source.path.stat()) for source in self.sources]
        names = ("samples", "splits", "split_by", "seed", "compression")
        return {
            "family": self.sources[0].family.name,
            "sources": [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats],
            **{name: getattr(self.options, name) for name in names},
        }


def make_plan(
    paths: Sequence[Path],
    family: Family,
    options: Options,
    root: Path,
    own_splits: Mapping[Path, str] | None = None,
) -> Plan:
    """Check every source and the sources against each other.

    Args:
        paths: Files to convert, before `options.limit`.
        family: Their family.
        options: What to take and how to split it.
        root: Folder above them all, that source names are given relative to.
        own_splits: Split of each file, where they were split before.

    Raises:
        ValueError: A source that is not as its family has it, does not fit the first, or repeats another one.
    """
    sources = tuple(
        describe_source(path, family, max_samples=options.samples, name=path.relative_to(root).as_posix())
        for path in sorted(paths)[: options.limit]
    )
    for source in sources[1:]:
        _check_fits(sources[0], source)
    groups, repeats = trajectory_keys(sources)
    if own_splits is not None:
        splits = keep_splits([own_splits[source.path] for source in sources for _ in source.samples], groups)
    elif options.split_by == "group" and (len(set(groups)) > 1 or options.splits is None):
        splits = make_splits(groups, options.splits, options.seed, "group")
    else:
        splits = make_splits(repeats, options.splits, options.seed, "trajectory")
    return Plan(sources, splits, options)


def _check_fits(first: Source, source: Source) -> None:
    """Refuse a source that cannot be merged with the first one."""
    facts = {
        "frames": (source.shapes, first.shapes),
        "boundary": (source.grid.boundary[0], first.grid.boundary[0]),
        "datasets": tuple([array.key for array in each.family.arrays] for each in (source, first)),
        "parameters": (list(source.parameters), list(first.parameters)),
    }
    different = [
        f"{name} {mine} instead of {others}" for name, (mine, others) in facts.items() if mine != others
    ]
    for name in () if different else ("x", "y"):
        mine, others = getattr(source.grid, name), getattr(first.grid, name)
        if not np.allclose(mine, others, rtol=0.0, atol=1e-5 * np.ptp(others)):
            different.append(f"{name} from {mine[0]} to {mine[-1]} instead of {others[0]} to {others[-1]}")
    if different:
        raise ValueError(
            f"{source.path}: {different[0]}, unlike {first.path.name}; files that do not fit cannot go into "
            "one output: select those that do with --pattern"
        )


def time_step(sources: Sequence[Source]) -> float | None:
    """Time between frames, where it is the same everywhere to float32 rounding; None otherwise."""
    steps = np.concatenate([np.diff(source.times[0]) for source in sources])
    if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-3):
        return None
    return float(f"{np.median(steps):.6g}")


def _flatten(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, t, ...) -> (frames, ...) of the chosen trajectories."""
    kept = values if chosen.all() else values[chosen]
    return kept.reshape(-1, *values.shape[2:])


def convert(plan: Plan, targets: Mapping[str, Path], stem: str) -> Result:
    """Carry out a plan.

    Args:
        plan: The checked conversion.
        targets: Split name -> output file, of all splits.
        stem: Name of the conversion.

    Raises:
        ValueError: Data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same call continues.
    """
    used = plan.splits.used
    with workspace(targets, stem, plan.request(), overwrite=plan.options.overwrite) as stage:
        _say_notes(plan)
        if "publishing" not in stage.progress:
            paths = {split: stage.folder / targets[split].name for split in used}
            with Interrupt() as interrupt:
                _write_sources(plan, stage, paths, interrupt)
            if interrupt.signal:
                logger.warning("stopped by %s; the same command continues", interrupt.signal.name)
                return Result(exit_code=interrupt.exit_code)
            if plan.options.verify:
                verify(plan, paths)
        frames = stage.progress["frames"]
        publish(stage, targets, used)
    counts = {
        split: {"trajectories": int(plan.splits.chosen(split).sum()), "frames": frames[split]}
        for split in used
    }
    return Result({split: targets[split] for split in used}, counts)


def _write_sources(plan: Plan, stage: Stage, paths: Mapping[str, Path], interrupt: Interrupt) -> None:
    """Append every source that is not in the outputs yet; stop between blocks when interrupted."""
    finished = stage.progress.get("finished", 0)
    frames = stage.progress.get("frames", dict.fromkeys(paths, 0))
    if finished:
        logger.info("continuing behind source %d of %d", finished, len(plan.sources))
    description, done = plan.sources[0].family.name, sum(frames.values())
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(_writer(plan, path, split, frames[split]))
            for split, path in paths.items()
        }
        progress = stack.enter_context(
            Progress(plan.num_frames, unit="frame", description=description, initial=done)
        )
        for index in range(finished, len(plan.sources)):
            for split, fields, times, ids in plan.parts(index):
                if interrupt.signal:
                    return
                writers[split].append(fields, time=times, trajectory=ids)
                progress.update(len(times))
            for writer in writers.values():
                writer.sync()
            stage.record(
                finished=index + 1, frames={split: writer.num_samples for split, writer in writers.items()}
            )
        for writer in writers.values():
            writer.close(complete=True)


def _writer(plan: Plan, path: Path, split: str, frames: int) -> HDF5Writer:
    """Writer of one split's unfinished output: continued behind the last finished source, or new."""
    if frames:
        return HDF5Writer.resume(path, num_samples=frames)
    return HDF5Writer(
        path,
        fields=plan.sources[0].shapes,
        coordinates={"x": plan.sources[0].grid.x, "y": plan.sources[0].grid.y},
        metadata=plan.metadata() | {"split": split},
        parameters=plan.parameters(split),
        texts=plan.texts(split),
        compression=plan.options.compression,
        overwrite=True,
    )


def _say_notes(plan: Plan) -> None:
    """Say what the user must know of this conversion before it starts."""
    family, splits = plan.sources[0].family, plan.splits
    if family.note:
        logger.info("%s: %s", family.name, family.note)
    for source in plan.sources:
        if source.dtype != "float32":
            logger.warning("%s: %s fields are stored as float32", source.path, source.dtype)
    total, groups = len(splits.assignment), splits.num_groups
    if groups < total and splits.by == "group" and plan.options.splits is not None:
        logger.info("%d trajectories start from %d states, kept together by the split", total, groups)
    if plan.options.split_by == "group" and splits.by == "trajectory" and total > 1:
        logger.warning(
            "all %d trajectories start from one state, so val and test start as train does (--split-by group "
            "is impossible)",
            total,
        )
    shared = groups < total
    for split in splits.empty:
        logger.warning(
            "%d trajectories%s leave none for the split %r, which gets no file: take more with --samples or "
            "--limit, or choose %s",
            total,
            f" that start from {groups} states" if shared else "",
            split,
            "--split-by trajectory" if shared else "--splits",
        )


def verify(plan: Plan, paths: Mapping[str, Path]) -> None:
    """Read sources and outputs again and compare every value, time, id and parameter.

    float64 sources are compared after rounding to float32, which is what the format stores.

    Raises:
        ValueError: The first difference, or a violation of the common format.
    """
    for path in paths.values():
        if violations := validate(path):
            raise ValueError(f"{path}: {violations[0]}; convert again")
    with ExitStack() as stack:
        files = {split: stack.enter_context(open_file(path)) for split, path in paths.items()}
        progress = stack.enter_context(Progress(plan.num_frames, unit="frame", description="verify"))
        position = dict.fromkeys(files, 0)
        for index in range(len(plan.sources)):
            for split, fields, times, ids in plan.parts(index):
                start, stop = position[split], position[split] + len(times)
                expected = {f"fields/{name}": values for name, values in fields.items()}
                expected |= {"coordinates/time": times, "coordinates/trajectory": ids}
                for name, values in expected.items():
                    stored = files[split][name][start:stop]
                    # Bits, not values: -0.0 is not 0.0 here.
                    if stored.dtype != values.dtype or stored.tobytes() != values.tobytes():
                        _say_different(paths[split], f"{name}, samples {start} to {stop - 1},")
                position[split] = stop
                progress.update(len(times))
        for split, file in files.items():
            if num_samples(file) != position[split]:
                _say_different(paths[split], "the number of frames")
            if {name: item[()].tolist() for name, item in file["parameters"].items()} != plan.parameters(
                split
            ):
                _say_different(paths[split], "parameters")
            for name, text in plan.texts(split).items():
                if np.asarray(file[name].asstr()[()]).tolist() != text:
                    _say_different(paths[split], name)
    logger.info("verified: %d frames equal their sources bit for bit", plan.num_frames)


def _say_different(path: Path, what: str) -> NoReturn:
    raise ValueError(f"{path}: {what} differ from the sources; convert again")
