"""The main loop: steps, frames, checkpoints, and the orderly end of a run on any number of ranks."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from solvers.common.checkpoint import all_or_nothing
from solvers.common.files import WriterLock
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.progress import Interrupt, Progress
from solvers.rayleigh_benard.config import CHECKPOINT_NAME, RBCConfig
from solvers.rayleigh_benard.diagnostics import diagnose
from solvers.rayleigh_benard.generate_rbc import RayleighBenard
from solvers.rayleigh_benard.output import (
    CHANGEABLE,
    Saved,
    create_output,
    gather_state,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from solvers.rayleigh_benard.sampling import Sampler
from solvers.rayleigh_benard.stepsize import StepClock

logger = logging.getLogger(__name__)

OUTPUT_NAME = "output.h5"
PROBE_CADENCE = 10  # iterations between looks at the velocity
LOG_CADENCE = 100  # iterations between log lines, a multiple of the above
CHECKPOINT_SECONDS = 30.0  # wall clock between checkpoints, which are written after frames

T = TypeVar("T")


def on_root(comm: Any, action: Callable[[], T]) -> T | None:
    """Return an action's result on rank 0, None elsewhere; its ValueError or OSError is raised on all."""
    result: T | None = None
    error: ValueError | OSError | None = None
    if comm.rank == 0:
        try:
            result = action()
        except (ValueError, OSError) as caught:
            error = caught
    error = comm.bcast(error)
    if error is not None:
        raise error
    return result


def largest(comm: Any, number: int) -> int:
    """Maximum over the ranks. Collective."""
    if comm.size == 1:
        return number
    message = np.array([number])
    comm.Allreduce(MPI.IN_PLACE, message, op=MPI.MAX)
    return int(message[0])


def abort_on_surprise(comm: Any) -> None:
    """Let an exception that nothing catches end all ranks: the others would wait for this one for ever."""
    if comm.size == 1:
        return
    report = sys.excepthook

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(kind, error, trace)
        sys.stderr.flush()
        comm.Abort(1)

    sys.excepthook = end


class Run:
    """One run into one directory. All methods are collective; only rank 0 touches the disk.

    Args:
        config: the run.
        output_dir: created if missing; gets `output.h5` and `checkpoint.npz`.
        overwrite: replace an earlier output.
        resume: continue an earlier output from its checkpoint.
        comm: ranks to run on.
        checkpoint_seconds: wall-clock time between checkpoints; 0 writes one after each frame.

    Raises:
        ValueError: If the parameters do not fit the run to resume, or the ranks do not fit the grid.
        FileExistsError: If there is an output and neither flag is given.
        OSError: If the directory cannot be written.
    """

    def __init__(
        self,
        config: RBCConfig,
        output_dir: Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        comm: Any = MPI.COMM_WORLD,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.config, self._comm, self._resumed = config, comm, resume
        self._output, self._checkpoint = output_dir / OUTPUT_NAME, output_dir / CHECKPOINT_NAME
        self._checkpoint_seconds, self._last_checkpoint = checkpoint_seconds, -math.inf
        self._lock: WriterLock | None = None
        self._writer: HDF5Writer | None = None
        # What can go wrong is tried first: building the matrices of a large grid takes a while.
        saved = on_root(comm, lambda: self._take_directory(overwrite))
        logger.info("building the matrices of %dx%d modes on %d rank(s)", *config.resolution, comm.size)
        self.flow = RayleighBenard(config, comm)
        self.sampler = Sampler(self.flow)
        self.clock = StepClock(config)
        if resume:
            restore(self.flow, self.clock, saved)
            logger.info("resumed at time %g, iteration %d", self.clock.time, self.clock.iteration)
        else:
            self.flow.set_initial()
            self._writer = on_root(comm, lambda: self._create_output(overwrite))

    def execute(self) -> int:
        """Run to the end or to a signal; returns the exit code (0, or 128 + signal).

        Raises:
            FloatingPointError: If the flow blew up; the frames written before are finite.
            OSError: If the output cannot be written.
        """
        with contextlib.ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())
            if self._lock is not None and self._writer is not None:
                stack.enter_context(self._lock)
                stack.enter_context(self._writer)
            progress = None
            if self._writer is not None:
                total, done = self.config.num_intervals + 1, self._writer.num_samples
                bar = Progress(total, unit="frame", description="convection", initial=done)
                progress = stack.enter_context(bar)
            if not self._resumed:
                with all_or_nothing(self._writer):
                    self._write_frame(progress)
            while self.clock.frame < self.config.num_intervals:
                if self.clock.j == 0 or self.clock.iteration % PROBE_CADENCE == 0:
                    self._probe()
                self.flow.step(self.clock.dt)
                if self.clock.advance():
                    self._write_frame(progress)
                if signal := largest(self._comm, interrupt.signal or 0):
                    self._save()
                    message = "stopped by signal %d at time %g, saved; --resume continues"
                    logger.warning(message, signal, self.clock.time)
                    return 128 + signal
            self._save()
            self._write(lambda writer: writer.close(complete=True))
        path = self._output
        logger.info(
            "%d frames in %s; next: python -m solvers.rayleigh_benard.plot %s rbc.png, or "
            "python scripts/train.py fit --config configs/vqvae/rayleigh_benard.yaml --data.data_path %s",
            self.config.num_intervals + 1, path, path, path,
        )  # fmt: skip
        return 0

    def _take_directory(self, overwrite: bool) -> Saved | None:
        """Lock the directory and, where a run is resumed, read and reopen it. Rank 0 only."""
        if self._output.exists() and not (overwrite or self._resumed):
            found = f"{self._output} exists"
            raise FileExistsError(f"{found}: continue it with --resume or replace it with --overwrite")
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as on_error:
            self._lock = on_error.enter_context(WriterLock(self._checkpoint))
            saved = None
            if self._resumed:
                saved = read_checkpoint(self._checkpoint, self.config)
                changed = {name: getattr(self.config, name) for name in CHANGEABLE}
                frames = saved.counters["frame"] + 1
                self._writer = HDF5Writer.resume(self._output, num_samples=frames, metadata=changed)
            on_error.pop_all()
        return saved

    def _create_output(self, overwrite: bool) -> HDF5Writer:
        """Writer of a new output; rank 0 only."""
        points, ranks = self.sampler.coordinates(), self._comm.size
        writer = create_output(self._output, self.config, points, num_ranks=ranks, overwrite=overwrite)
        self._checkpoint.unlink(missing_ok=True)  # it belongs to the output that is replaced now
        return writer

    def _write(self, action: Callable[[HDF5Writer], None]) -> None:
        """Let rank 0 do something with its writer; an error there is raised everywhere."""
        writer = self._writer
        on_root(self._comm, lambda: None if writer is None else action(writer))

    def _probe(self) -> None:
        """Check the flow, adapt the time step, log."""
        probe = self.sampler.probe()
        if not probe.finite:
            raise self._blow_up("the flow is no longer finite")
        if not self.clock.adapt(probe.rate):
            raise self._blow_up("the flow asks for too small a time step")
        if self.clock.iteration % LOG_CADENCE == 0:
            reynolds = probe.max_speed / self.config.nu
            counts = self.clock.iteration, self.clock.time, self.clock.dt
            logger.info("iteration %d, time %.4f, dt %.3e, max(Re) %.4g", *counts, reynolds)

    def _write_frame(self, progress: Progress | None) -> None:
        """Append a frame with its scalars; save a checkpoint when one is due."""
        if not self.sampler.probe().finite:
            raise self._blow_up("the flow is no longer finite")
        frame, now, dt = self.sampler.frame(), self.clock.time, self.clock.dt
        scalars = diagnose(self.config, self.sampler.profiles(), dt)
        self._write(lambda writer: writer.append(frame, time=now, scalars=scalars))
        if progress is not None:
            shown = {"t": now, "dt": dt, "Nu": scalars["nusselt_flux"], "max(Re)": scalars["reynolds_max"]}
            progress.update(1, shown)
        if self._comm.bcast(time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds):
            self._save()

    def _save(self) -> None:
        """Write a checkpoint, after the frames that it belongs to are on the disk."""
        arrays = gather_state(self.flow)
        self._write(lambda writer: writer.sync())
        on_root(self._comm, lambda: write_checkpoint(self._checkpoint, self.flow, self.clock, arrays))
        self._last_checkpoint = time.monotonic()

    def _blow_up(self, what: str) -> FloatingPointError:
        """Error with time, step and advice."""
        clock, factor = self.clock, 2 * self.config.safety_factor
        kept = clock.frame + 1 if clock.j else clock.frame
        return FloatingPointError(
            f"{what} at time {clock.time:.6g}, iteration {clock.iteration}, dt {clock.dt:.3g}; "
            f"the {kept} frames before it are kept. Continue with smaller steps (--resume "
            f"--safety_factor {factor:g}) or start again with a finer --resolution"
        )
