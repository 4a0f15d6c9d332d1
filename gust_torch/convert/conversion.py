"""Converts grids to the common HDF5 format: streaming, resumable, all or nothing, verified on request."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from gust_torch.convert.output import Result, Workspace
from gust_torch.convert.plan import Part, Plan
from gust_torch.convert.reader import open_reader
from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, validate
from solvers.common.progress import Interrupt, Progress

logger = logging.getLogger(__name__)


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
    with Workspace(targets, stem, plan.request(), overwrite=plan.options.overwrite) as workspace:
        _say_notes(plan)
        if "publishing" not in workspace.progress:
            with Interrupt() as interrupt:
                _write_sources(plan, workspace, interrupt)
            if interrupt.signal:
                logger.warning("stopped by %s; the same command continues", interrupt.signal.name)
                return Result(exit_code=interrupt.exit_code)
            if plan.options.verify:
                verify(plan, {split: workspace.path(split) for split in plan.splits.used})
        frames = workspace.progress["frames"]
        workspace.publish(plan.splits.used)
    return Result(
        {split: targets[split] for split in plan.splits.used},
        {
            split: {"trajectories": int(plan.splits.chosen(split).sum()), "frames": frames[split]}
            for split in plan.splits.used
        },
    )


def _write_sources(plan: Plan, workspace: Workspace, interrupt: Interrupt) -> None:
    """Append every source that is not in the outputs yet; stops between blocks when interrupted."""
    finished = workspace.progress.get("finished", 0)
    frames = workspace.progress.get("frames", dict.fromkeys(plan.splits.used, 0))
    if finished:
        logger.info("continuing behind source %d of %d", finished, len(plan.sources))
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(_writer(plan, workspace.path(split), split, count))
            for split, count in frames.items()
        }
        progress = stack.enter_context(
            Progress(
                plan.num_frames, unit="frame", description=plan.family.name, initial=sum(frames.values())
            )
        )
        for index in range(finished, len(plan.sources)):
            with open_reader(plan.sources[index]) as reader:
                for block in reader.blocks():
                    if interrupt.signal:
                        return
                    for split, writer in writers.items():
                        if (part := plan.route(index, block, split)) is not None:
                            writer.append(part.fields, time=part.times, trajectory=part.trajectories)
                    progress.update(block.span.num_frames)
            for writer in writers.values():
                writer.sync()
            frames = {split: writer.num_samples for split, writer in writers.items()}
            workspace.record(finished=index + 1, frames=frames)
        for writer in writers.values():
            writer.close(complete=True)


def _writer(plan: Plan, path: Path, split: str, frames: int) -> HDF5Writer:
    """Writer of one split's unfinished output: continued behind the last finished source, or new."""
    if frames:
        return HDF5Writer.resume(path, num_samples=frames)
    grid = plan.sources[0].grid
    return HDF5Writer(
        path,
        fields=plan.sources[0].shapes,
        coordinates={"x": grid.x, "y": grid.y},
        metadata=plan.metadata() | {"split": split},
        parameters=plan.parameters(split),
        texts=plan.texts(split),
        compression=plan.options.compression,
        overwrite=True,
    )


def _say_notes(plan: Plan) -> None:
    """Say what the user must know of this conversion before it starts."""
    if plan.family.note:
        logger.info("%s: %s", plan.family.name, plan.family.note)
    for source in plan.sources:
        if source.dtype != "float32":
            logger.warning("%s: %s fields are stored as float32", source.path, source.dtype)
    total, groups = len(plan.splits.assignment), plan.splits.num_groups
    if groups < total and plan.splits.by == "group" and plan.options.splits is not None:
        logger.info("%d trajectories start from %d states, kept together by the split", total, groups)
    if plan.options.split_by == "group" and plan.splits.by == "trajectory" and total > 1:
        logger.warning(
            "all %d trajectories start from one state, so val and test start as train does (--split-by group "
            "is impossible)",
            total,
        )
    states = "" if groups == total else f" that start from {groups} state{'s' if groups > 1 else ''}"
    for split in plan.splits.empty:
        logger.warning(
            "%d trajectories%s leave none for the split %r, which gets no file: take more with --samples or "
            "--limit, or choose %s",
            total,
            states,
            split,
            "--split-by trajectory" if states else "--splits",
        )


def verify(plan: Plan, paths: Mapping[str, Path]) -> None:
    """Read sources and outputs again and compare every value, time, id and parameter.

    float64 sources are compared after rounding to float32, which is what the format stores.

    Args:
        plan: The conversion.
        paths: Split name -> its output.

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
        for index, source in enumerate(plan.sources):
            with open_reader(source) as reader:
                for block in reader.blocks():
                    for split, file in files.items():
                        if (part := plan.route(index, block, split)) is not None:
                            _compare(file, position[split], part, source.path)
                            position[split] += len(part.times)
                    progress.update(block.span.num_frames)
        for split, file in files.items():
            _compare_tables(plan, split, file, position[split])
    logger.info("verified: %d frames equal their sources bit for bit", plan.num_frames)


def _compare(file: h5py.File, start: int, part: Part, source: Path) -> None:
    """Compare frames [start, ...) of an output with what the source gives."""
    stop = start + len(part.times)
    expected = {f"fields/{name}": values for name, values in part.fields.items()}
    expected |= {"coordinates/time": part.times, "coordinates/trajectory": part.trajectories}
    for name, values in expected.items():
        stored = file[name][start:stop]
        # Bits, not values: -0.0 is not 0.0 here.
        if stored.dtype != values.dtype or stored.tobytes() != np.ascontiguousarray(values).tobytes():
            raise ValueError(
                f"{file.filename}: {name}, samples {start} to {stop - 1}, differs from {source}; "
                "convert again"
            )


def _compare_tables(plan: Plan, split: str, file: h5py.File, frames: int) -> None:
    """Compare the number of frames, the parameters and the origins."""
    texts = plan.texts(split)
    for name, stored, expected in (
        ("number of frames", num_samples(file), frames),
        (
            "parameters",
            {name: dataset[()].tolist() for name, dataset in file["parameters"].items()},
            plan.parameters(split),
        ),
        ("texts", {name: np.asarray(file[name].asstr()[()]).tolist() for name in texts}, texts),
    ):
        if stored != expected:
            raise ValueError(f"{file.filename}: {name} differ from the sources; convert again")
