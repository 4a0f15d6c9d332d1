"""Converts grids to the common HDF5 format: checked first, streaming, resumable, verified on request."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gust_torch.convert.families import Family
from gust_torch.convert.output import Options, Result, carry_out
from gust_torch.convert.source import Source, describe_source, open_reader, plan_spans
from gust_torch.convert.splits import WHOLE, Splits, keep_splits, make_splits, trajectory_keys
from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, validate
from solvers.common.progress import Interrupt, Progress
from solvers.common.provenance import provenance
from solvers.common.splits import SPLITS, split_path
from solvers.common.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A checked conversion: sources in the order they are written, and the split of each trajectory."""

    sources: tuple[Source, ...]
    splits: Splits
    options: Options

    @property
    def num_frames(self) -> int:
        """Frames of all sources."""
        return sum(source.times.size for source in self.sources)

    def parts(self, index: int) -> Iterator[tuple[str, dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """Read a source block by block, each divided among the splits.

        Yields:
            Split, fields (frames, x, y[, c]) float32, times (frames,) float64 and ids (frames,) int32.
        """
        source = self.sources[index]
        start = sum(len(other.samples) for other in self.sources[:index])
        masks = {split: self.splits.chosen(split) for split in self.splits.used}
        numbers = {split: (np.cumsum(mask) - 1).astype(np.int32) for split, mask in masks.items()}
        with open_reader(source) as read:
            for n, t in plan_spans(source):
                fields, times = read(n, t), source.times[n, t]
                here = slice(start + n.start, start + n.stop)
                for split, mask in masks.items():
                    if (chosen := mask[here]).any():
                        kept = slice(None) if chosen.all() else chosen  # a slice copies nothing
                        parts = {name: _flatten(values[kept]) for name, values in fields.items()}
                        ids = np.repeat(numbers[split][here][chosen], times.shape[1])
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
        names = self.splits.names
        assigned: dict[str, dict[str, list[str]]] = {
            name: {source.name: [] for source in self.sources} for name in names
        }
        origins = [(source.name, sample) for source in self.sources for sample in source.samples]
        for (source, sample), index in zip(origins, self.splits.assignment.tolist(), strict=True):
            assigned[names[index]][source].append(sample)
        manifest = {
            "seed": self.options.seed,
            "fractions": dict(zip(names, self.splits.fractions, strict=True)),
            "split_by": self.splits.by,
            "num_groups": self.splits.num_groups,
            "splits": assigned,
        }
        return {
            "trajectories/source": [name for name, samples in assigned[split].items() for _ in samples],
            "trajectories/sample": [sample for samples in assigned[split].values() for sample in samples],
            "split/manifest": json.dumps(manifest),
        }


def _flatten(values: np.ndarray) -> np.ndarray:
    """(n, t, ...) -> (frames, ...)."""
    return values.reshape(-1, *values.shape[2:])


def convert(
    paths: Sequence[Path],
    family: Family,
    options: Options,
    whole: Path,
    root: Path,
    own_splits: Mapping[Path, str] = {},
) -> Result:
    """Check files of one family below a root, then convert them to `whole`, or to its _train, _val and _test.

    Files that have `own_splits` already stay in them.

    Raises:
        ValueError: Data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same call continues.
    """
    targets = {split: split_path(whole.parent, whole.stem, split) for split in SPLITS}
    if options.splits is None and not own_splits:
        targets = {WHOLE: whole}
    for target in targets.values():
        if target.is_dir() or target.resolve() in {path.resolve() for path in paths}:
            kind = "a folder" if target.is_dir() else "one of the sources"
            raise ValueError(f"{target} is {kind}, expected a file to write; choose another --out")
    sources = tuple(
        describe_source(path, family, max_samples=options.samples, name=path.relative_to(root).as_posix())
        for path in sorted(paths)[: options.limit]
    )
    for source in sources[1:]:
        _check_fits(sources[0], source)
    plan = Plan(sources, _split(sources, options, own_splits), options)
    stats = [(str(source.path), source.path.stat()) for source in sources]
    request = {
        "family": family.name,
        "sources": [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats],
        **{name: getattr(options, name) for name in ("samples", "splits", "split_by", "seed", "compression")},
    }
    return carry_out(targets, whole.stem, request, options, partial(_write, plan), partial(verify, plan))


def _split(sources: Sequence[Source], options: Options, own_splits: Mapping[Path, str]) -> Splits:
    """Draw the split of each trajectory, or keep that of its file."""
    groups, repeats = trajectory_keys(sources)
    if own_splits:
        return keep_splits([own_splits[source.path] for source in sources for _ in source.samples], groups)
    if options.split_by == "group" and (len(set(groups)) > 1 or options.splits is None):
        return make_splits(groups, options.splits, options.seed, "group")
    return make_splits(repeats, options.splits, options.seed, "trajectory")


def _check_fits(first: Source, source: Source) -> None:
    """Refuse a source that cannot be merged with the first one."""
    facts: dict[str, tuple[Any, Any]] = {
        "frames": (source.shapes, first.shapes),
        "boundary": (source.grid.boundary[0], first.grid.boundary[0]),
        "datasets": ([each.key for each in source.family.arrays], [each.key for each in first.family.arrays]),
        "parameters": (list(source.parameters), list(first.parameters)),
    }
    different = [
        f"{name} {mine} instead of {other}" for name, (mine, other) in facts.items() if mine != other
    ]
    for name in () if different else ("x", "y"):
        mine, other = getattr(source.grid, name), getattr(first.grid, name)
        if not np.allclose(mine, other, rtol=0.0, atol=1e-5 * np.ptp(other)):
            different.append(f"{name} from {mine[0]} to {mine[-1]} instead of {other[0]} to {other[-1]}")
    if different:
        raise ValueError(
            f"{source.path}: {different[0]}, unlike {first.path.name}; select files that fit with --pattern"
        )


def _write(plan: Plan, stage: Stage, paths: Mapping[str, Path], interrupt: Interrupt) -> None:
    """Append every source that is not in the outputs yet; stop between blocks when interrupted."""
    _say_notes(plan)
    finished = stage.progress.get("finished", 0)
    frames = stage.progress.get("frames", dict.fromkeys(plan.splits.used, 0))
    if finished:
        logger.info("continuing behind source %d of %d", finished, len(plan.sources))
    name, done = plan.sources[0].family.name, sum(frames.values())
    with ExitStack() as stack, Progress(plan.num_frames, unit="frame", description=name, initial=done) as bar:
        writers = {
            split: stack.enter_context(_writer(plan, paths[split], split, count))
            for split, count in frames.items()
        }
        for index in range(finished, len(plan.sources)):
            for split, fields, times, ids in plan.parts(index):
                if interrupt.signal:
                    return
                writers[split].append(fields, time=times, trajectory=ids)
                bar.update(len(times))
            for writer in writers.values():
                writer.sync()
            frames = {split: writer.num_samples for split, writer in writers.items()}
            stage.record(finished=index + 1, frames=frames)
        for writer in writers.values():
            writer.close(complete=True)
    trajectories = {split: int(plan.splits.chosen(split).sum()) for split in frames}
    stage.record(counts={key: {"trajectories": trajectories[key], "frames": frames[key]} for key in frames})


def _writer(plan: Plan, path: Path, split: str, frames: int) -> HDF5Writer:
    """Writer of one split's unfinished output: continued behind the last finished source, or new."""
    if frames:
        return HDF5Writer.resume(path, num_samples=frames)
    source, family, grid = plan.sources[0], plan.sources[0].family, plan.sources[0].grid
    steps = np.concatenate([np.diff(each.times[0]) for each in plan.sources])
    is_even = len(steps) > 0 and np.allclose(steps, steps[0], rtol=1e-3)
    return HDF5Writer(
        path,
        fields=source.shapes,
        coordinates={"x": grid.x, "y": grid.y},
        metadata={
            "solver": "pdebench",
            "family": family.name,
            "equation": family.equation,
            "split": split,
            "seed": plan.options.seed,
            "split_by": plan.splits.by,
            "boundary_x": grid.boundary[0],
            "boundary_y": grid.boundary[1],
            "boundary_note": family.boundary[1],
            "grid_y": "uniform",
            "length_x": grid.lengths[0],
            "length_y": grid.lengths[1],
            "source_dtype": ", ".join(sorted({each.dtype for each in plan.sources})),
            "source_config": source.config,
            **provenance(),
            **({"note": family.note} if family.note else {}),
            **({"dt": float(f"{np.median(steps):.6g}")} if is_even else {}),
        },
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
        logger.warning("all %d trajectories start from one state, so val and test start as train does", total)
    for split in splits.empty:
        logger.warning(
            "%d trajectories leave none for the split %r, which gets no file: take more with --samples or "
            "--limit, or choose other --splits or --split-by trajectory",
            total,
            split,
        )


def verify(plan: Plan, paths: Mapping[str, Path]) -> None:
    """Read sources (rounded to float32) and outputs again and compare every value, time, id and text."""
    for path in paths.values():
        if violations := validate(path):
            raise ValueError(f"{path}: {violations[0]}; convert again")
    with ExitStack() as stack, Progress(plan.num_frames, unit="frame", description="verify") as bar:
        files = {split: stack.enter_context(open_file(path)) for split, path in paths.items()}
        position = dict.fromkeys(files, 0)
        for index in range(len(plan.sources)):
            for split, fields, times, ids in plan.parts(index):
                start, stop = position[split], position[split] + len(times)
                expected = {f"fields/{name}": values for name, values in fields.items()}
                expected |= {"coordinates/time": times, "coordinates/trajectory": ids}
                for name, values in expected.items():
                    stored = files[split][name][start:stop]
                    # Bits, not values: -0.0 is not 0.0 here.
                    same = stored.dtype == values.dtype and stored.tobytes() == values.tobytes()
                    _check(same, paths[split], f"{name}, samples {start} to {stop - 1},")
                position[split] = stop
                bar.update(len(times))
        for split, file in files.items():
            _check(num_samples(file) == position[split], paths[split], "the number of frames")
            parameters = {name: item[()].tolist() for name, item in file["parameters"].items()}
            _check(parameters == plan.parameters(split), paths[split], "parameters")
            for name, text in plan.texts(split).items():
                _check(np.asarray(file[name].asstr()[()]).tolist() == text, paths[split], name)
    logger.info("verified: %d frames equal their sources bit for bit", plan.num_frames)


def _check(is_same: bool, path: Path, what: str) -> None:
    if not is_same:
        raise ValueError(f"{path}: {what} differ from the sources; convert again")
