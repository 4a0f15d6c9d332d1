"""Exact times and few changes of the time step."""

import dataclasses

import numpy as np
import pytest

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.stepsize import UPPER, StepClock, round_up


def run(
    config: RBCConfig, rates: "np.ndarray", cadence: int = 10
) -> tuple[StepClock, list[float], list[int]]:
    """Clock after consuming one rate per look; times of the frames and all n."""
    clock, times, counts = StepClock(config), [0.0], []
    rates_left = iter(rates)
    while True:
        if clock.j == 0 or clock.iteration % cadence == 0:
            rate = next(rates_left, None)
            if rate is None:
                return clock, times, counts
            assert clock.adapt(rate)
        counts.append(clock.n)
        before = clock.time
        dt = clock.dt
        frame_due = clock.advance()
        assert clock.time == pytest.approx(before + dt, rel=1e-12)
        if frame_due:
            times.append(clock.time)


@pytest.mark.parametrize("snapshot_dt", [0.25, 0.1, 3.0])
def test_frames_are_equidistant_under_any_rates(snapshot_dt: float) -> None:
    """Times are exact multiples although the step changes all the time, within intervals too."""
    config = RBCConfig(snapshot_dt=snapshot_dt, stop_sim_time=30.0)
    rates = 10 ** np.random.default_rng(0).uniform(0, 3, 400)
    clock, times, counts = run(config, rates)
    assert len(times) > 3
    assert times == [k * snapshot_dt for k in range(len(times))]
    assert len(set(counts)) > 5
    assert clock.changes > 10


def test_step_divides_the_interval_and_respects_the_limit() -> None:
    """After a look the step is at most UPPER times what the CFL number allows, and never above max_dt."""
    config = RBCConfig()
    for rate in (0.0, 1.0, 10.0, 77.0, 300.0, 1e4):
        clock = StepClock(config)
        clock.adapt(rate)
        assert clock.n * clock.dt == pytest.approx(config.snapshot_dt)
        assert clock.dt <= config.max_dt
        assert rate * clock.dt <= config.cfl * UPPER


def test_flicker_does_not_change_the_step() -> None:
    """A rate that varies by 10 % either way is left alone: every change costs about seven steps."""
    rates = 100 * (1 + 0.1 * np.random.default_rng(1).uniform(-1, 1, 500))
    clock, _, _ = run(RBCConfig(), rates)
    assert clock.changes <= 2  # the first choice and at most one correction


def test_decay_of_the_velocity_lets_the_step_grow_again() -> None:
    """Hysteresis must not lock in a small step."""
    clock, _, counts = run(RBCConfig(), np.concatenate([np.full(50, 400.0), np.full(50, 40.0)]))
    assert counts[0] > 5 * clock.n


def test_urgent_change_inside_an_interval() -> None:
    """A burst is answered at the next look, not at the next frame."""
    clock = StepClock(dataclasses.replace(RBCConfig(), snapshot_dt=10.0))
    clock.adapt(8.0)
    for _ in range(7):
        clock.advance()
    time = clock.time
    clock.adapt(80.0)
    assert clock.time == time
    assert 80.0 * clock.dt <= clock.config.cfl


def test_collapsing_step_is_reported() -> None:
    """A run that blows up asks for ever smaller steps before it is NaN."""
    assert not StepClock(RBCConfig()).adapt(1e9)


def test_round_up() -> None:
    """At most 1/16 more than asked for, on few values."""
    values = {round_up(n) for n in range(1, 1025)}
    assert all(n <= round_up(n) <= max(n + 0, n * 17 / 16) for n in range(1, 1025))
    assert len(values) < 120
