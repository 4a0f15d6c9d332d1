"""Advances a state through a run, a few steps at a time, and watches for a blow-up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from solvers.py2d_turbulence.state import State
from solvers.py2d_turbulence.stepper import Stepper

MAX_CHUNK_STEPS = 200
CHUNK_SECONDS = 0.5


class BlowUpError(ArithmeticError):
    """The flow is no longer finite.

    Attributes:
        state: the last state known to be good.
        step: number of steps at which it was found to be lost.
    """

    def __init__(self, state: State, step: int) -> None:
        super().__init__(f"the vorticity is not finite at step {step}")
        self.state = state
        self.step = step


def rollout(stepper: Stepper, state: State, *, num_steps: int, save_every: int) -> Iterator[State]:
    """Yield states up to step `num_steps`: each multiple of `save_every`, the last one, and some between.

    The states between come at least every 200 steps and about every half second, so that the caller can react
    to signals. They do not influence the result.

    Args:
        stepper: advances the state.
        state: where to start, not yielded itself.
        num_steps: number of the last step.
        save_every: steps between the states that must be among those yielded.

    Raises:
        BlowUpError: when NaN or Inf appears.
    """
    chunk = 1
    while state.step < num_steps:
        stop = min(state.step + chunk, num_steps, (state.step // save_every + 1) * save_every)
        start_time = time.perf_counter()
        following = stepper.advance(state, stop - state.step)
        seconds_per_step = (time.perf_counter() - start_time) / (stop - state.step)
        chunk = max(1, min(MAX_CHUNK_STEPS, 2 * chunk, int(CHUNK_SECONDS / seconds_per_step)))
        if not np.all(np.isfinite(following.omega_hat)):
            raise BlowUpError(state, following.step)
        state = following
        yield state
