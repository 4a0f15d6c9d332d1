"""Converts PDEBench files to the common HDF5 format: streaming, resumable, all or nothing."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from gust_torch.convert.parallel import open_parts
from gust_torch.convert.plan import Plan
from gust_torch.convert.reader import Block
from gust_torch.convert.routing import route
from gust_torch.convert.verify import verify
from gust_torch.convert.workspace import Journal, Workspace
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.progress import Interrupt, Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """Outcome of a conversion.

    Attributes:
        outputs: Split name -> file.
        trajectories: Split name -> its trajectories.
        frames: Split name -> its frames.
        exit_code: 0, or 128 + signal where a signal stopped it; the same command continues it then.
    """

    outputs: Mapping[str, Path]
    trajectories: Mapping[str, int]
    frames: Mapping[str, int]
    exit_code: int = 0

    def summary(self, split: str) -> str:
        """Return what a split's file holds."""
        return f"{self.trajectories[split]} trajectories, {self.frames[split]} frames"


def convert(
    plan: Plan,
    *,
    overwrite: bool = False,
    verify_outputs: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
) -> Result:
    """Carries out a plan.

    Args:
        plan: The checked conversion.
        overwrite: Replace existing targets.
        verify_outputs: Re-read the outputs and compare them with the sources before they get their names.
        workers: Processes that convert source files in parallel through Dask; 0 converts here.
        scheduler: Address of a running Dask scheduler to use instead of local processes.

    Raises:
        ValueError: Data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same command continues.
    """
    _say_notes(plan)
    workspace = Workspace(plan.targets, plan.unused, overwrite=overwrite)
    journal = workspace.begin(plan.request())
    if not journal.publishing:
        try:
            with Interrupt() as interrupt:
                journal = _write_sources(plan, workspace, journal, interrupt, workers, scheduler)
            if interrupt.signal:
                logger.warning("stopped by %s; the same command continues", interrupt.signal.name)
                return _result(plan, journal, interrupt.exit_code)
            if verify_outputs:
                verify(plan, {split: workspace.path(split) for split in plan.targets})
        except ValueError:
            workspace.discard()
            raise
    workspace.publish(journal)
    return _result(plan, journal, 0)


def _write_sources(
    plan: Plan,
    workspace: Workspace,
    journal: Journal,
    interrupt: Interrupt,
    workers: int,
    scheduler: str | None,
) -> Journal:
    """Append every source that is not in the outputs yet; stops between blocks when interrupted."""
    if journal.finished:
        logger.info("continuing behind source %d of %d", journal.finished, len(plan.sources))
    done = sum(journal.frames.values())
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(plan, workspace.folder, journal.finished, workers, scheduler))
        writers = {
            split: stack.enter_context(_writer(plan, workspace, journal, split)) for split in plan.targets
        }
        progress = stack.enter_context(
            Progress(plan.num_frames, unit="frame", description=plan.family.name, initial=done)
        )
        for index in range(journal.finished, len(plan.sources)):
            for block in parts.blocks(index, lambda: interrupt.signal is not None):
                _append(plan, writers, index, block)
                progress.update(block.span.num_frames)
            if interrupt.signal:
                return journal
            for writer in writers.values():
                writer.sync()
            frames = {split: writer.num_samples for split, writer in writers.items()}
            journal = replace(journal, finished=index + 1, frames=frames)
            workspace.record(journal)
            parts.drop(index)
        for writer in writers.values():
            writer.close(complete=True)
    return journal


def _writer(plan: Plan, workspace: Workspace, journal: Journal, split: str) -> HDF5Writer:
    """Writer of one split's unfinished output: continued behind the last finished source, or new."""
    path = workspace.path(split)
    if journal.frames[split]:
        return HDF5Writer.resume(path, num_samples=journal.frames[split])
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


def _append(plan: Plan, writers: Mapping[str, HDF5Writer], index: int, block: Block) -> None:
    """Send each trajectory of a block to the writer of its split."""
    for split, writer in writers.items():
        if (part := route(plan, index, block, split)) is not None:
            writer.append(part.fields, time=part.times, trajectory=part.trajectories)


def _say_notes(plan: Plan) -> None:
    """Return what the user must know of this conversion before it starts."""
    if plan.family.note:
        logger.info("%s: %s", plan.family.name, plan.family.note)
    for source in plan.sources:
        if source.dtype != "float32":
            logger.warning("%s: %s fields are stored as float32", source.path, source.dtype)
    total = len(plan.splits.assignment)
    for split in plan.splits.empty:
        logger.warning(
            "%d trajectories leave none for the split %r, which gets no file: take more with --samples or "
            "--limit, or choose --splits",
            total,
            split,
        )


def _result(plan: Plan, journal: Journal, exit_code: int) -> Result:
    """Count of what is in the outputs."""
    counts = {split: plan.splits.count(plan.splits.names.index(split)) for split in plan.targets}
    return Result(plan.targets, counts, journal.frames, exit_code)
