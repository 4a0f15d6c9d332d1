"""Parameters, cadence and the stability check."""

from dataclasses import asdict, replace

import pytest

from solvers.py2d_turbulence.config import RunConfig, SolverConfig
from solvers.py2d_turbulence.stability import check_step, expected_speed, round_down, step_limit


def test_defaults_are_those_of_the_original() -> None:
    """Flags of the JAX code."""
    expected = {
        "Re": 1000.0, "NX": 512, "fkx": 4, "fky": 4, "dt": 1e-4, "tTotal": 20.0, "tSave": 1e-2, "beta": 0.0,
        "alpha": 0.1,
    }  # fmt: skip
    parameters = asdict(RunConfig())
    assert {name: parameters[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NX", 65, "--NX"),
        ("NX", 2, "--NX"),
        ("NX", -7, "--NX"),
        ("Re", 0.0, "--Re"),
        ("Re", float("inf"), "--Re"),
        ("dt", -1e-4, "--dt"),
        ("dt", float("nan"), "--dt"),
        ("alpha", -0.1, "--alpha"),
        ("beta", float("nan"), "--beta"),
        ("fkx", -1, "--fkx"),
        ("fky", 32, "NX=64.*--fky"),
        ("dtype", "float16", "float64 or float32"),
    ],
)
def test_invalid_parameter(name: str, value: object, message: str) -> None:
    """Named, with what to do."""
    with pytest.raises(ValueError, match=message):
        replace(SolverConfig(NX=64), **{name: value})


@pytest.mark.parametrize(
    ("tSave", "dt", "expected"), [(0.3, 1e-4, 3000), (0.01, 1e-4, 100), (0.1, 6.25e-4, 160), (0.7, 0.1, 7)]
)
def test_cadence_is_rounded(tSave: float, dt: float, expected: int) -> None:
    """0.3/1e-4 is 2999.9999999999995."""
    config = RunConfig(dt=dt, tSave=tSave, tTotal=10 * tSave)
    assert config.save_every == expected
    assert config.num_steps == 10 * expected


@pytest.mark.parametrize(("name", "value"), [("tSave", 0.0125), ("tTotal", 1.0005)])
def test_time_between_steps_is_refused(name: str, value: float) -> None:
    """With values that fit, and that are accepted then."""
    with pytest.raises(ValueError, match=f"{name}=.* choose --{name}") as caught:
        RunConfig(dt=1e-3, **{name: value})
    words = str(caught.value).split()
    suggestions = [float(words[words.index(f"--{name}") + i].rstrip(",")) for i in (1, 3)]
    for suggestion in suggestions:
        RunConfig(dt=1e-3, **{name: suggestion})
    RunConfig(**{"dt": float(words[-1]), "tSave": value, "tTotal": value})


@pytest.mark.parametrize(("name", "value"), [("tSave", 0.0), ("tTotal", -1.0), ("tSave", 5e-5), ("seed", -1)])
def test_impossible_run(name: str, value: float) -> None:
    """No frames, no time, less than a step."""
    with pytest.raises(ValueError, match=name):
        RunConfig(**{name: value})


def test_step_limit_separates_what_held_from_what_blew_up() -> None:
    """At Re=1000, NX=128, max(|u|+|v|) about 7, dt=6.25e-4 held and 1.25e-3 blew up within 100 time units."""
    config = SolverConfig(NX=128)
    assert 6.25e-4 < step_limit(config, 7.0) < 1.25e-3
    assert step_limit(config, 0.0) == float("inf")


@pytest.mark.parametrize(
    ("config", "measured"),
    [
        (SolverConfig(NX=128), 7.5),
        (SolverConfig(NX=64, alpha=0.5), 4.2),
        (SolverConfig(NX=64, fkx=2, fky=2), 10.0),
        (SolverConfig(NX=64, fkx=8, fky=8), 5.3),
        (SolverConfig(NX=64, Re=100.0), 5.8),
        (SolverConfig(NX=64, fkx=0), 5.6),
        (SolverConfig(NX=64, fkx=0, fky=0), 0.0),
    ],
)
def test_expected_speed(config: SolverConfig, measured: float) -> None:
    """Against max(|u|+|v|) of runs to t = 60."""
    assert expected_speed(config) == pytest.approx(measured, rel=0.3)


def test_large_step_is_refused_by_the_flow_at_hand() -> None:
    """Refused at four times the limit of the initial field, not of some U = 1; the advice is accepted."""
    config = SolverConfig(NX=128, dt=1e-3)
    assert check_step(replace(config, dt=5e-4), 7.0) == []
    with pytest.raises(ValueError, match=r"max\(\|u\|\+\|v\|\) = 40") as caught:
        check_step(config, 40.0)
    words = str(caught.value).split()
    advice = float(words[words.index("--dt") + 1])
    assert check_step(replace(config, dt=advice), 40.0) == []


def test_warning_about_the_flow_to_come() -> None:
    """From rest nothing is wrong yet."""
    warnings = check_step(SolverConfig(NX=128, dt=1.25e-3), 0.0)
    assert len(warnings) == 1
    assert "--dt 0.0005 is safer" in warnings[0]


def test_warning_about_beta() -> None:
    """Growth beta^2 dt / 2 over a tenth of the drag."""
    config = SolverConfig(NX=64, dt=1e-4, beta=20.0)
    assert "forward Euler" in check_step(config, 1.0)[0]
    assert check_step(replace(config, dt=2e-5), 1.0) == []
    assert "lower --dt" in check_step(replace(config, alpha=0.0), 1.0)[0]


@pytest.mark.parametrize(("value", "expected"), [(7.9e-4, 5e-4), (5e-4, 5e-4), (1.99e-3, 1e-3), (0.3, 0.2)])
def test_round_down(value: float, expected: float) -> None:
    """1, 2 or 5 times a power of ten."""
    assert round_down(value) == expected
