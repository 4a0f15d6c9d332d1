"""Parameters of a turbulence run, with their defaults and checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Precision = Literal["float64", "float32"]
FieldName = Literal["vorticity", "omega"]
MULTIPLE_TOLERANCE = 1e-6  # tSave / dt may miss a whole number by this fraction: decimal input
CHECKPOINT_SECONDS = 120.0
OUTPUT_NAME = "output.h5"
CHECKPOINT_NAME = "checkpoint.npz"


@dataclass(frozen=True)
class SolverConfig:
    """Parameters of the equation and of its discretization (times in units of the equation).

    d omega/dt + div(u omega) = nu lap(omega) - alpha omega + beta v - F,
    nu = 1/Re, F = fky cos(fky y) + fkx cos(fkx x), on [0, 2 pi)^2.

    Attributes:
        Re: Reynolds number, 1/viscosity.
        NX: grid points in x and in y, an even number.
        fkx: forcing wavenumber in x, 0 for none.
        fky: forcing wavenumber in y, 0 for none.
        dt: time step.
        beta: gradient of the Coriolis parameter; waves drift towards +x (py2d's sign).
        alpha: linear (Rayleigh) drag, a rate per unit time.
        dtype: precision of the transforms. The state is held and advanced in float64 in either case (with dt
            around 1e-4 the increment of a step is close to the rounding of float32); frames are float32.
    """

    Re: float = 1000.0
    NX: int = 512
    fkx: int = 4
    fky: int = 4
    dt: float = 1e-4
    beta: float = 0.0
    alpha: float = 0.1
    dtype: Precision = "float64"

    def __post_init__(self) -> None:
        half = self.NX // 2
        self._check(self.NX >= 4 and self.NX % 2 == 0, "NX", "an even number of at least 4")
        for name in ("Re", "dt"):
            self._check(0.0 < getattr(self, name) < math.inf, name, "a positive number")
        self._check(0.0 <= self.alpha < math.inf, "alpha", "zero or positive (a drag)")
        self._check(math.isfinite(self.beta), "beta", "a finite number")
        for name in ("fkx", "fky"):
            resolved = f"in 0..{half - 1} to be resolved at NX={self.NX}"
            self._check(0 <= getattr(self, name) < half, name, resolved)
        self._check(self.dtype in get_args(Precision), "dtype", " or ".join(get_args(Precision)))

    def _check(self, is_good: bool, name: str, wanted: str) -> None:
        if not is_good:
            raise ValueError(f"{name} must be {wanted}, got {getattr(self, name)!r}; set --{name}")

    @property
    def nu(self) -> float:
        """Viscosity 1/Re."""
        return 1.0 / self.Re


@dataclass(frozen=True)
class RunConfig(SolverConfig):
    """A run: besides the equation, where it starts, how long it lasts and what is saved of it.

    Attributes:
        tTotal: length of the run, a multiple of dt.
        tSave: time between frames, a multiple of dt; t = 0 is saved too.
        seed: seed of the random initial field, the same flow at every NX.
        ic_file: initial vorticity instead: .mat (Omega), .npz (omega0 or omega), .h5 of the common format
            (last frame); any resolution.
        field_name: what the vorticity is called in the output; the JAX code looks for `omega`.
    """

    tTotal: float = 20.0
    tSave: float = 1e-2
    seed: int = 0
    ic_file: str | None = None
    field_name: FieldName = "vorticity"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(self.seed >= 0, "seed", "zero or positive")
        self._check(self.field_name in get_args(FieldName), "field_name", " or ".join(get_args(FieldName)))
        for name in ("tTotal", "tSave"):
            interval = getattr(self, name)
            self._check(0.0 < interval < math.inf, name, "a positive number")
            ratio = interval / self.dt
            steps = max(1, round(ratio))
            if abs(ratio - steps) > MULTIPLE_TOLERANCE * steps:
                below = max(1, math.floor(ratio))
                raise ValueError(
                    f"{name}={interval:g} must be a whole number of steps, but is {ratio:.6g} steps of "
                    f"dt={self.dt:g}; choose --{name} {below * self.dt:.10g} or "
                    f"{(below + 1) * self.dt:.10g}, or --dt {interval / math.ceil(ratio):.10g}"
                )

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return round(self.tTotal / self.dt)

    @property
    def save_every(self) -> int:
        """Steps between two frames."""
        return round(self.tSave / self.dt)


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes the flow.

    Attributes:
        output_dir: directory of output.h5 and checkpoint.npz; made if missing.
        workers: threads, results do not depend on their number; 0 chooses by NX and cores.
        compression: of the frames; turbulence shrinks by 5 to 20 % only.
        checkpoint_interval: seconds of wall-clock time between checkpoints.
        skip_stability_check: start even if dt is too large for the initial flow.
    """

    output_dir: Path
    workers: int = 0
    compression: Literal["lz4", "gzip"] | None = None
    checkpoint_interval: float = CHECKPOINT_SECONDS
    skip_stability_check: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 1 or more (0 chooses), got {self.workers}; set --workers")
        if not self.checkpoint_interval >= 0.0:
            found = self.checkpoint_interval
            raise ValueError(f"checkpoint_interval must be 0 seconds or more, got {found}; set it")

    @property
    def output(self) -> Path:
        """The output file."""
        return self.output_dir / OUTPUT_NAME

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.output_dir / CHECKPOINT_NAME
