"""The loop of a run: steps, frames, checkpoints, and what to do about signals and blow-ups."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.progress import Interrupt, Progress
from solvers.py2d_turbulence.config import RunConfig
from solvers.py2d_turbulence.diagnostics import Diagnostics, diagnose, largest_speed
from solvers.py2d_turbulence.grid import DOMAIN_LENGTH
from solvers.py2d_turbulence.output import append_frame
from solvers.py2d_turbulence.restart import write_checkpoint
from solvers.py2d_turbulence.rollout import BlowUpError, rollout
from solvers.py2d_turbulence.stability import WARNING_FACTOR, round_down, step_limit
from solvers.py2d_turbulence.state import State
from solvers.py2d_turbulence.stepper import Stepper

logger = logging.getLogger(__name__)

LARGEST_CFL = 1.0  # beyond it the explicit advection has lost the flow, even if numbers are still finite


class RunLoop:
    """One run on its open output.

    Args:
        config: the run.
        stepper: advances its state.
        writer: its output.
        checkpoint: path of its checkpoint.
        checkpoint_interval: seconds of wall-clock time between checkpoints.
    """

    def __init__(
        self,
        config: RunConfig,
        stepper: Stepper,
        writer: HDF5Writer,
        checkpoint: Path,
        checkpoint_interval: float,
    ) -> None:
        self._config, self._stepper, self._writer = config, stepper, writer
        self._checkpoint, self._checkpoint_interval = checkpoint, checkpoint_interval
        self._last_checkpoint = time.monotonic()
        self._limit = math.inf  # for dt, the smallest that a frame bore

    def march(self, state: State, interrupt: Interrupt) -> int:
        """Run to the end or to a signal; returns the exit code.

        Raises:
            ArithmeticError: if the flow blows up; frames and checkpoint stay those of the good flow.
        """
        config, size = self._config, self._config.NX
        try:
            with Progress(
                config.num_steps, description=f"turbulence {size}x{size}", initial=state.step
            ) as progress:
                for following in rollout(
                    self._stepper, state, num_steps=config.num_steps, save_every=config.save_every
                ):
                    steps, state = following.step - state.step, following
                    stopping = interrupt.signal is not None or state.step == config.num_steps
                    progress.update(steps, self._visit(state, stopping=stopping))
                    if stopping:
                        break
        except BlowUpError as error:
            raise ArithmeticError(self._explain(error)) from error
        if state.step < config.num_steps and interrupt.signal is not None:
            reached = state.step * config.dt
            logger.warning("%s: stopped at t=%g, saved; --resume continues", interrupt.signal.name, reached)
            return interrupt.exit_code
        self._writer.close(complete=True)
        logger.info("%d frames in %s", self._writer.num_samples, self._writer.path)
        return 0

    def save_frame(self, state: State) -> Diagnostics:
        """Write a frame with its diagnostics."""
        diagnostics = diagnose(state.omega_hat, self._config)
        self._append(state, diagnostics)
        return diagnostics

    def save_checkpoint(self, state: State) -> None:
        """Put the frames on the disk, then the checkpoint that counts them."""
        self._writer.sync()
        write_checkpoint(
            self._checkpoint,
            self._config,
            state,
            num_samples=self._writer.num_samples,
            backend=self._stepper.backend,
        )
        self._last_checkpoint = time.monotonic()

    def _visit(self, state: State, *, stopping: bool) -> dict[str, float]:
        """Save what is due at a state; returns the numbers to show, empty where nothing is due.

        Raises:
            BlowUpError: if the flow moves more than a grid length a step: such a state is not worth saving.
        """
        config = self._config
        frame_due = state.step % config.save_every == 0 or state.step == config.num_steps
        checkpoint_due = stopping or time.monotonic() - self._last_checkpoint >= self._checkpoint_interval
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
        """Write a frame, and warns once if the flow has become too fast for the step."""
        config = self._config
        append_frame(self._writer, state, diagnostics, time=state.step * config.dt)
        limit = step_limit(config, diagnostics.cfl * DOMAIN_LENGTH / (config.NX * config.dt))
        if limit < config.dt / WARNING_FACTOR <= self._limit:
            logger.warning(
                "warning: dt=%g is above the %.2g that the flow bears (CFL %.2g) and may blow up",
                config.dt,
                limit,
                diagnostics.cfl,
            )
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
