"""Parameters and the resolution string."""

import dataclasses

import pytest

from solvers.rayleigh_benard.config import RBCConfig


@pytest.mark.parametrize(
    ("text", "expected"), [("512x128", (512, 128)), ("64X32", (64, 32)), ("64 x 32", (64, 32))]
)
def test_resolution(text: str, expected: tuple[int, int]) -> None:
    """NXxNZ, either case."""
    assert RBCConfig(resolution=text).resolution == expected


@pytest.mark.parametrize(
    "text",
    ["512", "512x", "axb", "512x128x3", "-64x32", "0x32", "64x4", "65x32", "", "6.4e1x32"],
)
def test_bad_resolution(text: str) -> None:
    """One line that names the flag."""
    with pytest.raises(ValueError, match=r"resolution: expected .* got"):
        RBCConfig(resolution=text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rayleigh", 0.0),
        ("rayleigh", float("nan")),
        ("prandtl", -1.0),
        ("dT", 0.0),
        ("safety_factor", 0.0),
        ("snapshot_dt", float("inf")),
        ("seed", -1),
        ("timestepper", "RK4"),
        ("grid", "lobatto"),
        ("init", "rest"),
        ("fields", ()),
        ("fields", ("buoyancy", "buoyancy")),
        ("fields", ("omega",)),
        ("stop_sim_time", 50.1),
        ("stop_sim_time", -0.25),
        ("resolution", (64, 2)),
    ],
)
def test_bad_value(name: str, value: object) -> None:
    """The message begins with the parameter."""
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        dataclasses.replace(RBCConfig(), **{name: value})


def test_free_fall_units() -> None:
    """kappa = (Ra Pr)^(-1/2), nu = (Ra / Pr)^(-1/2): nu kappa = 1 / Ra, nu / kappa = Pr."""
    config = RBCConfig(rayleigh=3e5, prandtl=0.7)
    assert config.nu * config.kappa == pytest.approx(1 / 3e5)
    assert config.nu / config.kappa == pytest.approx(0.7)


def test_number_of_intervals_is_rounded_not_cut() -> None:
    """0.3 / 0.1 is 2.9999999999999996."""
    assert RBCConfig(snapshot_dt=0.1, stop_sim_time=0.3).num_intervals == 3


def test_safety_factor_divides() -> None:
    """A larger factor means smaller steps."""
    assert RBCConfig(safety_factor=8).cfl == pytest.approx(RBCConfig().cfl / 8)
