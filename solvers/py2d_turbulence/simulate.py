"""A run from its start, or from its checkpoint, to its end."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from solvers.common.checkpoint import Checkpoint
from solvers.common.progress import Interrupt
from solvers.py2d_turbulence.config import RunConfig
from solvers.py2d_turbulence.diagnostics import largest_speed
from solvers.py2d_turbulence.fft import import_wisdom
from solvers.py2d_turbulence.grid import padded_size
from solvers.py2d_turbulence.initial import random_vorticity, read_vorticity
from solvers.py2d_turbulence.output import create_output, reopen_output
from solvers.py2d_turbulence.restart import read_checkpoint
from solvers.py2d_turbulence.run_loop import RunLoop
from solvers.py2d_turbulence.stability import check_step
from solvers.py2d_turbulence.state import initial_state
from solvers.py2d_turbulence.stepper import Stepper
from solvers.py2d_turbulence.team import available_cores
from solvers.py2d_turbulence.wisdom_cache import cached_wisdom_path, load_wisdom, store_wisdom

logger = logging.getLogger(__name__)

OUTPUT_NAME = "output.h5"
CHECKPOINT_NAME = "checkpoint.npz"
CHECKPOINT_SECONDS = 120.0
POINTS_PER_WORKER = 128  # a further thread pays off for every so many grid points along an axis


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes the flow.

    Attributes:
        output_dir: directory of output.h5 and checkpoint.npz.
        workers: threads; 0 chooses.
        compression: None, "lz4" or "gzip".
        overwrite: replace an earlier output.
        skip_stability_check: start with any step.
        checkpoint_interval: seconds of wall-clock time between checkpoints.
    """

    output_dir: Path
    workers: int = 0
    compression: str | None = None
    overwrite: bool = False
    skip_stability_check: bool = False
    checkpoint_interval: float = CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 1 or more (0 chooses), got {self.workers}; set --workers")
        if not self.checkpoint_interval >= 0.0:
            raise ValueError(
                f"checkpoint_interval must be 0 seconds or more, got {self.checkpoint_interval}; "
                "set --checkpoint_interval"
            )

    @property
    def output(self) -> Path:
        """The output file."""
        return self.output_dir / OUTPUT_NAME

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.output_dir / CHECKPOINT_NAME


def start(config: RunConfig, options: Options) -> int:
    """Run from time 0; returns the exit code.

    Raises:
        ValueError: if the initial condition cannot be read or the step is too large for it.
        FileExistsError: if there is an earlier run and it is not to be overwritten.
        OSError: if the output cannot be written.
        ArithmeticError: if the flow blows up.
    """
    for path in (options.output, options.checkpoint):
        if path.exists() and not options.overwrite:
            raise FileExistsError(f"{path} exists: continue it with --resume or replace it with --overwrite")
    if config.ic_file is None:
        omega = random_vorticity(config.NX, config.seed)
    else:
        omega = read_vorticity(config.ic_file, config.NX)
    state = initial_state(omega)
    if not options.skip_stability_check:
        for warning in check_step(config, largest_speed(state.omega_hat)):
            logger.warning("warning: %s", warning)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with Interrupt() as interrupt:
        stepper = _plan(config, options)
        writer = create_output(
            options.output, config, compression=options.compression, overwrite=options.overwrite
        )
        with writer:
            options.checkpoint.unlink(missing_ok=True)  # it belongs to the output that is replaced now
            loop = RunLoop(config, stepper, writer, options.checkpoint, options.checkpoint_interval)
            loop.save_frame(state)
            loop.save_checkpoint(state)
            return loop.march(state, interrupt)


def resume(config: RunConfig, options: Options, checkpoint: Checkpoint) -> int:
    """Continues a run from its checkpoint; returns the exit code.

    Raises:
        ValueError: if the checkpoint or the output do not belong to such a run.
        OSError: if the output cannot be written.
        ArithmeticError: if the flow blows up.
    """
    saved = read_checkpoint(options.checkpoint, checkpoint)
    state, time_reached = saved.state, saved.state.step * config.dt
    if state.step >= config.num_steps:
        logger.info("complete at t=%g, nothing to do; a larger --tTotal continues the run", time_reached)
        return 0
    import_wisdom(checkpoint.arrays)
    with Interrupt() as interrupt:
        stepper = Stepper(config, workers=_workers(config, options))
        if saved.backend != stepper.backend:
            change = f"{saved.backend} before, {stepper.backend} now"
            logger.warning("warning: %s: the run continues to round-off, not bit for bit", change)
        # A run whose length is no multiple of tSave ended on a frame out of turn: drop it on going on.
        num_samples = min(saved.num_samples, state.step // config.save_every + 1)
        with reopen_output(options.output, num_samples=num_samples, tTotal=config.tTotal) as writer:
            logger.info("resumed at t=%g, step %d", time_reached, state.step)
            loop = RunLoop(config, stepper, writer, options.checkpoint, options.checkpoint_interval)
            return loop.march(state, interrupt)


def _plan(config: RunConfig, options: Options) -> Stepper:
    """Return a stepper with the transforms that earlier runs of this size on this machine used."""
    start_time = time.perf_counter()
    cached = cached_wisdom_path(padded_size(config.NX), config.dtype)
    known = load_wisdom(cached)
    stepper = Stepper(config, workers=_workers(config, options))
    if not known:
        store_wisdom(cached)
    seconds = time.perf_counter() - start_time
    logger.info("%s, %d thread(s), planned in %.1f s", stepper.backend, stepper.workers, seconds)
    return stepper


def _workers(config: RunConfig, options: Options) -> int:
    return options.workers or max(1, min(available_cores(), config.NX // POINTS_PER_WORKER))
