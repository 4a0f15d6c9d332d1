"""Parameters of a turbulence run, with their defaults and checks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

ParameterValue = str | int | float | bool | None

DTYPES = ("float64", "float32")
MULTIPLE_TOLERANCE = 1e-6  # tSave / dt may miss a whole number by this fraction: decimal input


@dataclass(frozen=True)
class SolverConfig:
    """Parameters of the equation and of its discretization (times in units of the equation).

    d omega/dt + div(u omega) = nu lap(omega) - alpha omega + beta v - F,
    nu = 1/Re, F = fky cos(fky y) + fkx cos(fkx x), on [0, 2 pi)^2.

    Attributes:
        Re: Reynolds number; the viscosity is 1/Re.
        NX: grid points along each axis; even.
        fkx: forcing wavenumber along x, 0 for none.
        fky: forcing wavenumber along y, 0 for none.
        dt: time step.
        beta: gradient of the Coriolis parameter; waves drift towards +x (py2d's sign).
        alpha: linear (Rayleigh) drag.
        dtype: precision of the transforms. The state is held and advanced in float64 in either case: with
            dt around 1e-4 the increment of a step is close to the rounding of float32.
    """

    Re: float = 1000.0
    NX: int = 512
    fkx: int = 4
    fky: int = 4
    dt: float = 1e-4
    beta: float = 0.0
    alpha: float = 0.1
    dtype: str = "float64"

    def __post_init__(self) -> None:
        for name in ("Re", "dt"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} must be a positive number, got {value}; set --{name}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0.0):
            raise ValueError(f"alpha must be zero or positive (a drag), got {self.alpha}; set --alpha")
        if not math.isfinite(self.beta):
            raise ValueError(f"beta must be a finite number, got {self.beta}; set --beta")
        if self.NX < 4 or self.NX % 2:
            remedy = max(4, self.NX + self.NX % 2)
            raise ValueError(f"NX must be even and at least 4, got {self.NX}; try --NX {remedy}")
        for name in ("fkx", "fky"):
            value = getattr(self, name)
            if not 0 <= value < self.NX // 2:
                raise ValueError(
                    f"{name} must be in 0..{self.NX // 2 - 1} to be resolved at NX={self.NX}, got {value}; "
                    f"lower --{name} or raise --NX above {2 * abs(value)}"
                )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}; set --dtype")

    @property
    def nu(self) -> float:
        """Viscosity 1/Re."""
        return 1.0 / self.Re


@dataclass(frozen=True)
class RunConfig(SolverConfig):
    """A run: besides the equation, where it starts, how long it lasts and how often it is saved.

    Attributes:
        tTotal: simulated time.
        tSave: simulated time between two frames.
        seed: seed of the random initial field.
        ic_file: file with the initial vorticity in place of the random one.
    """

    tTotal: float = 20.0
    tSave: float = 1e-2
    seed: int = 0
    ic_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}; set --seed")
        for name in ("tTotal", "tSave"):
            self._check_multiple(name, getattr(self, name))

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return round(self.tTotal / self.dt)

    @property
    def save_every(self) -> int:
        """Steps between two frames."""
        return round(self.tSave / self.dt)

    def parameters(self) -> dict[str, ParameterValue]:
        """Return all parameters by the names of their flags."""
        return asdict(self)

    def _check_multiple(self, name: str, interval: float) -> None:
        if not (math.isfinite(interval) and interval > 0.0):
            raise ValueError(f"{name} must be a positive number, got {interval}; set --{name}")
        ratio = interval / self.dt
        steps = max(1, round(ratio))
        if abs(ratio - steps) > MULTIPLE_TOLERANCE * steps:
            below = max(1, math.floor(ratio))
            raise ValueError(
                f"{name}={interval:g} must be a whole number of steps, but is {ratio:.6g} steps of "
                f"dt={self.dt:g}; choose --{name} {below * self.dt:.10g} or {(below + 1) * self.dt:.10g}, "
                f"or --dt {interval / math.ceil(ratio):.10g}"
            )
