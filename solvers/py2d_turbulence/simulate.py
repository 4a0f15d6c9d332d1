"""A run from its start, or from its checkpoint, to its end."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict

import numpy as np

from solvers.common.checkpoint import all_or_nothing, check_parameters
from solvers.common.files import WriterLock
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.progress import Interrupt, Progress
from solvers.py2d_turbulence.config import Options, RunConfig
from solvers.py2d_turbulence.diagnostics import Diagnostics, diagnose, largest_speed
from solvers.py2d_turbulence.fft import cached_wisdom_path, import_wisdom, load_wisdom, store_wisdom
from solvers.py2d_turbulence.grid import DOMAIN_LENGTH, padded_size
from solvers.py2d_turbulence.initial import random_vorticity, read_vorticity
from solvers.py2d_turbulence.output import create_output, read_checkpoint, write_checkpoint
from solvers.py2d_turbulence.stability import WARNING_FACTOR, check_step, round_down, step_limit
from solvers.py2d_turbulence.stepper import BlowUpError, State, Stepper, initial_state, rollout
from solvers.py2d_turbulence.team import available_cores

logger = logging.getLogger(__name__)

LARGEST_CFL = 1.0  # beyond it the explicit advection has lost the flow, even if numbers are still finite
POINTS_PER_WORKER = 128  # a further thread pays off for every so many grid points along an axis


def start(config: RunConfig, options: Options, *, overwrite: bool = False) -> int:
    """Run from time 0; return the exit code.

    Raises:
        ValueError: if the initial condition cannot be read or the step is too large for it.
        OSError: if there is an earlier run that is not to be overwritten, or the output cannot be written.
        FloatingPointError: if the flow blows up.
    """
    for path in (options.output, options.checkpoint):
        if path.exists() and not overwrite:
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
    with WriterLock(options.checkpoint), Interrupt() as interrupt:
        stepper = _plan(config, options)
        compression = options.compression
        with create_output(options.output, config, compression=compression, overwrite=overwrite) as writer:
            options.checkpoint.unlink(missing_ok=True)  # it belongs to the output that is replaced now
            loop = RunLoop(config, options, stepper, writer)
            with all_or_nothing(writer):
                loop.save_frame(state)
                loop.save_checkpoint(state)
            return loop.march(state, interrupt)


def resume(config: RunConfig, options: Options) -> int:
    """Continue a run from its checkpoint; return the exit code.

    Raises:
        ValueError: if the checkpoint or the output do not belong to such a run.
        OSError: if the output cannot be written, or another process writes it.
        FloatingPointError: if the flow blows up.
    """
    with WriterLock(options.checkpoint), Interrupt() as interrupt:
        saved = read_checkpoint(options.checkpoint)
        check_parameters(options.checkpoint, saved.parameters, asdict(config), apart_from=("tTotal",))
        length = {"tTotal": config.tTotal}
        state, time_reached = saved.state, saved.state.step * config.dt
        if state.step > config.num_steps:
            reached = f"the run to resume is at t={time_reached:g} already"
            raise ValueError(f"tTotal={config.tTotal:g}: {reached}; give a larger --tTotal")
        if state.step == config.num_steps:  # a kill may have come just before the mark
            with HDF5Writer.resume(options.output, num_samples=saved.num_samples, metadata=length) as writer:
                writer.close(complete=True)
            logger.info("complete at t=%g, nothing to do; a larger --tTotal continues the run", time_reached)
            return 0
        import_wisdom(saved.wisdom)
        stepper = Stepper(config, workers=_workers(config, options))
        if saved.backend != stepper.backend:
            change = f"{saved.backend} before, {stepper.backend} now"
            logger.warning("warning: %s: the run continues to round-off, not bit for bit", change)
        # A run whose length is no multiple of tSave ended on a frame out of turn: drop it on going on.
        num_samples = min(saved.num_samples, state.step // config.save_every + 1)
        with HDF5Writer.resume(options.output, num_samples=num_samples, metadata=length) as writer:
            logger.info("resumed at t=%g, step %d", time_reached, state.step)
            return RunLoop(config, options, stepper, writer).march(state, interrupt)


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


class RunLoop:
    """One run on its open output."""

    def __init__(self, config: RunConfig, options: Options, stepper: Stepper, writer: HDF5Writer) -> None:
        self._config, self._options, self._stepper, self._writer = config, options, stepper, writer
        self._last_checkpoint = time.monotonic()
        self._limit = math.inf  # for dt, the smallest that a frame bore

    def march(self, state: State, interrupt: Interrupt) -> int:
        """Run to the end or to a signal; returns the exit code.

        Where the flow blows up (FloatingPointError) frames and checkpoint stay those of the good flow.
        """
        config, size = self._config, self._config.NX
        states = rollout(self._stepper, state, num_steps=config.num_steps, save_every=config.save_every)
        title = f"turbulence {size}x{size}"
        try:
            with Progress(config.num_steps, description=title, initial=state.step) as progress:
                for following in states:
                    steps, state = following.step - state.step, following
                    stopping = interrupt.signal is not None or state.step == config.num_steps
                    progress.update(steps, self._visit(state, stopping=stopping))
                    if stopping:
                        break
        except BlowUpError as error:
            raise FloatingPointError(self._explain(error)) from error
        if state.step < config.num_steps and interrupt.signal is not None:
            reached = state.step * config.dt
            logger.warning("%s: stopped at t=%g, saved; --resume continues", interrupt.signal.name, reached)
            return interrupt.exit_code
        self._writer.close(complete=True)
        path = self._writer.path
        logger.info(
            "%d frames in %s; next: python scripts/train.py fit --config configs/vqvae/turbulence.yaml "
            "--data.data_path %s",
            self._writer.num_samples, path, path,
        )  # fmt: skip
        return 0

    def save_frame(self, state: State) -> None:
        """Write a frame with its diagnostics."""
        self._append(state, diagnose(state.omega_hat, self._config))

    def save_checkpoint(self, state: State) -> None:
        """Put the frames on the disk, then the checkpoint that counts them."""
        self._writer.sync()
        write_checkpoint(
            self._options.checkpoint,
            self._config,
            state,
            num_samples=self._writer.num_samples,
            backend=self._stepper.backend,
        )
        self._last_checkpoint = time.monotonic()

    def _visit(self, state: State, *, stopping: bool) -> dict[str, float]:
        """Save what is due at a state; returns the numbers to show, empty where nothing is due.

        A flow that moves more than a grid length a step is not worth saving: BlowUpError.
        """
        config = self._config
        frame_due = state.step % config.save_every == 0 or state.step == config.num_steps
        seconds = time.monotonic() - self._last_checkpoint
        checkpoint_due = stopping or seconds >= self._options.checkpoint_interval
        if not (frame_due or checkpoint_due):
            return {}
        diagnostics = diagnose(state.omega_hat, config)
        if not diagnostics.cfl <= LARGEST_CFL:
            raise BlowUpError(state, state.step)
        if frame_due:
            self._append(state, diagnostics)
        if checkpoint_due:
            self.save_checkpoint(state)
        energy, enstrophy = diagnostics.energy, diagnostics.enstrophy
        return {"t": state.step * config.dt, "E": energy, "Z": enstrophy, "CFL": diagnostics.cfl}

    def _append(self, state: State, diagnostics: Diagnostics) -> None:
        """Write a frame, and warn once if the flow has become too fast for the step."""
        config = self._config
        frame: dict[str, np.ndarray] = {config.field_name: state.vorticity.astype(np.float32)}
        self._writer.append(frame, time=state.step * config.dt, scalars=asdict(diagnostics))
        limit = step_limit(config, diagnostics.cfl * DOMAIN_LENGTH / (config.NX * config.dt))
        if limit < config.dt / WARNING_FACTOR <= self._limit:
            message = "warning: dt=%g is above the %.2g that the flow bears (CFL %.2g) and may blow up"
            logger.warning(message, config.dt, limit, diagnostics.cfl)
        self._limit = min(limit, self._limit)

    def _explain(self, error: BlowUpError) -> str:
        config = self._config
        cfl = config.dt * largest_speed(error.state.omega_hat) * config.NX / DOMAIN_LENGTH
        advice = round_down(min(0.5 * config.dt, self._limit))
        frames = f"the {self._writer.num_samples} frames in {self._writer.path} are good"
        return (
            f"the flow blew up before t={error.step * config.dt:g} "
            f"(CFL {cfl:.3g} at t={error.state.step * config.dt:g}): set --dt {advice:g} or less, or lower "
            f"--NX or --Re; {frames}, and --ic_file can start from the last"
        )
