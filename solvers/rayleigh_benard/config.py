"""Parameters of a Rayleigh-Bénard run."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import tyro

# (components, 0 for a scalar) of every field that can be written.
FIELD_COMPONENTS: Mapping[str, int] = {"buoyancy": 0, "vorticity": 0, "pressure": 0, "velocity": 2}
ONE_STEP_SCHEMES = ("RK222", "RK111", "RK443", "RKSMR")
Scheme = Literal[
    "RK222", "RK111", "RK443", "RKSMR",
    "SBDF2", "SBDF1", "SBDF3", "SBDF4", "CNAB1", "CNAB2", "MCNAB2", "CNLF2",
]  # fmt: skip
Grid = Literal["chebyshev", "uniform"]
Init = Literal["default"]

CFL_NUMBER = 0.4
MAX_DT = 0.05  # free-fall times: bounds the error of the growing modes while the fluid is still at rest
MIN_RESOLUTION = 8
CHECKPOINT_NAME = "checkpoint.npz"

INSTALL_HINT = (
    "Dedalus 3 is missing or does not load. It compiles against MPI and FFTW: "
    "apt-get install libopenmpi-dev libfftw3-dev libfftw3-mpi-dev, then "
    "CC=mpicc pip install 'gust_torch[rbc]'; "
    "or conda install -c conda-forge dedalus"
)

# "512x128" on the command line; the configuration itself reads the text, and says in one line what is wrong.
_RESOLUTION: Any = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="NXxNZ",
    instance_from_str=lambda texts: texts[0],
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: ["x".join(map(str, value))],
)


@dataclass(frozen=True)
class RBCConfig:
    """Boussinesq convection between no-slip walls of fixed temperature, periodic in x.

    Lengths are in units of the depth (0 <= z <= 1), times in free-fall units of a unit temperature
    difference: kappa = (Ra Pr)^(-1/2), nu = (Ra/Pr)^(-1/2). The buoyancy is dT at z = 0 and 0 at z = 1, so
    the effective Rayleigh number is Ra dT.

    Attributes:
        rayleigh: Rayleigh number, for dT = 1.
        prandtl: Prandtl number.
        dT: temperature difference of the walls and of the initial profile.
        resolution: Fourier and Chebyshev modes, and points of the frames; NX even.
        seed: of the noise in the initial buoyancy.
        init: initial condition; "default" is the conductive profile with noise.
        safety_factor: divides the CFL number, 0.4 at 1; the time step is proportional to its inverse.
        stop_sim_time: end of the run in free-fall times, a multiple of `snapshot_dt`.
        snapshot_dt: time between frames.
        timestepper: Dedalus scheme.
        grid: z points of the frames, Gauss nodes as computed ("chebyshev") or cell centers ("uniform").
        fields: any of buoyancy, vorticity, pressure, velocity.
        length_x: horizontal period.
    """

    rayleigh: float = 1e6
    prandtl: float = 1.0
    dT: float = 1.0
    resolution: Annotated[tuple[int, int], _RESOLUTION] = (512, 128)
    seed: int = 42
    init: Init = "default"
    safety_factor: float = 1.0
    stop_sim_time: float = 50.0
    snapshot_dt: float = 0.25
    timestepper: Scheme = "RK222"
    grid: Grid = "chebyshev"
    fields: tuple[str, ...] = ("buoyancy", "vorticity")
    length_x: tyro.conf.Suppress[float] = 4.0

    def __post_init__(self) -> None:
        if isinstance(self.resolution, str):
            if not re.fullmatch(r"\s*\d+\s*x\s*\d+\s*", self.resolution.lower()):
                raise ValueError(f"resolution: expected NXxNZ such as 512x128, got {self.resolution!r}")
            object.__setattr__(self, "resolution", tuple(map(int, self.resolution.lower().split("x"))))
        for name in ("rayleigh", "prandtl", "dT", "safety_factor", "snapshot_dt", "length_x"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a positive number, got {value}")
        if self.seed < 0:
            raise ValueError(f"seed: expected an integer >= 0, got {self.seed}")
        for name, allowed in {
            "timestepper": get_args(Scheme),
            "grid": get_args(Grid),
            "init": get_args(Init),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if (
            not self.fields
            or set(self.fields) - set(FIELD_COMPONENTS)
            or len({*self.fields}) < len(self.fields)
        ):
            wanted = f"distinct names out of {', '.join(FIELD_COMPONENTS)}"
            raise ValueError(f"fields: expected {wanted}, got {list(self.fields)}")
        nx, nz = self.resolution
        if min(nx, nz) < MIN_RESOLUTION or nx % 2:  # sines and cosines come in pairs
            wanted = f"at least {MIN_RESOLUTION} modes each way and an even NX"
            raise ValueError(f"resolution: expected {wanted}, got {nx}x{nz}")
        ratio = self.stop_sim_time / self.snapshot_dt
        if not (math.isfinite(ratio) and ratio >= 0 and abs(ratio - round(ratio)) <= 1e-6):
            wanted = f"a multiple of snapshot_dt = {self.snapshot_dt} (the last frame ends the run)"
            raise ValueError(f"stop_sim_time: expected {wanted}, got {self.stop_sim_time}")

    @property
    def kappa(self) -> float:
        """Thermal diffusivity."""
        return (self.rayleigh * self.prandtl) ** -0.5

    @property
    def nu(self) -> float:
        """Kinematic viscosity."""
        return (self.rayleigh / self.prandtl) ** -0.5

    @property
    def cfl(self) -> float:
        """CFL number aimed at."""
        return CFL_NUMBER / self.safety_factor

    @property
    def max_dt(self) -> float:
        """Largest time step, a fraction of the free-fall time dT^(-1/2) of the layer."""
        return min(MAX_DT / self.dT**0.5, self.snapshot_dt)

    @property
    def num_intervals(self) -> int:
        """Intervals between frames; the run has one frame more."""
        return round(self.stop_sim_time / self.snapshot_dt)

    @property
    def one_step(self) -> bool:
        """Whether the scheme needs no earlier steps, so that a restart is exact."""
        return self.timestepper in ONE_STEP_SCHEMES

    def plain(self) -> dict[str, str | int | float | bool]:
        """All parameters as plain values for metadata and checkpoints; "512x128", "a,b" for the tuples."""
        values = dataclasses.asdict(self)
        values["resolution"] = "x".join(map(str, self.resolution))
        values["fields"] = ",".join(self.fields)
        return values

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "RBCConfig":
        """Parameters from `plain` values; missing ones take their defaults, other names are passed over."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        if "fields" in known:
            known["fields"] = tuple(known["fields"].split(","))
        return cls(**known)
