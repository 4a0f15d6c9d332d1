"""The output file and the checkpoint of a turbulence run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from solvers.common.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.provenance import provenance
from solvers.py2d_turbulence.config import RunConfig
from solvers.py2d_turbulence.diagnostics import Diagnostics
from solvers.py2d_turbulence.fft import export_wisdom
from solvers.py2d_turbulence.grid import DOMAIN_LENGTH, coordinates
from solvers.py2d_turbulence.stepper import State

SOLVER = "py2d_turbulence"
PARAMETERS = ("Re", "nu", "alpha", "beta", "fkx", "fky")


def create_output(path: Path, config: RunConfig, *, compression: str | None, overwrite: bool) -> HDF5Writer:
    """Return the writer of a new output file."""
    axis = coordinates(config.NX)
    return HDF5Writer(
        path,
        fields={config.field_name: (config.NX, config.NX)},
        coordinates={"x": axis, "y": axis},
        metadata={
            **{name: "" if value is None else value for name, value in asdict(config).items()},
            "solver": SOLVER,
            "scheme": "ab2cn",
            "nu": config.nu,
            "boundary_x": "periodic",
            "boundary_y": "periodic",
            "grid_y": "uniform",
            "length_x": DOMAIN_LENGTH,
            "length_y": DOMAIN_LENGTH,
            **provenance(),
        },
        parameters={name: float(getattr(config, name)) for name in PARAMETERS},
        scalars=[field.name for field in fields(Diagnostics)],
        compression=compression,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class Saved:
    """A stopped run, as its checkpoint has it.

    Attributes:
        parameters: the run's parameters by the names of their flags.
        state: the state.
        num_samples: frames in the output at that moment.
        backend: what computed it, for example "pyfftw+numba".
        wisdom: for `import_wisdom`.
    """

    parameters: dict[str, Any]
    state: State
    num_samples: int
    backend: str
    wisdom: Mapping[str, np.ndarray]


def write_checkpoint(path: Path, config: RunConfig, state: State, *, num_samples: int, backend: str) -> None:
    """Replace the checkpoint atomically; where the disk is full, the one before stays."""
    counters: dict[str, int | str] = {"step": state.step, "num_samples": num_samples, "backend": backend}
    save_checkpoint(
        path,
        {"omega_hat": state.omega_hat, "advection_hat": state.advection_hat, **export_wisdom()},
        {**asdict(config), "solver": SOLVER, **counters},
    )


def read_checkpoint(path: Path) -> Saved:
    """Read a stopped run; a ValueError if there is no checkpoint, or not one of this solver."""
    checkpoint = load_checkpoint(path)
    parameters, meta, arrays = parameters_of(path, checkpoint), checkpoint.meta, checkpoint.arrays
    shape = parameters["NX"], parameters["NX"] // 2 + 1
    if any(arrays.get(name, np.empty(0)).shape != shape for name in ("omega_hat", "advection_hat")):
        raise ValueError(f"{path}: expected two states {shape}; it is damaged, start anew with --overwrite")
    state = State(arrays["omega_hat"], arrays["advection_hat"], int(str(meta["step"])))
    return Saved(parameters, state, int(str(meta["num_samples"])), str(meta["backend"]), arrays)


def parameters_of(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the parameters of a stopped run by the names of their flags."""
    meta = {"field_name": "vorticity", **checkpoint.meta}  # older ones lack it
    names = [field.name for field in fields(RunConfig)]
    if meta.get("solver") != SOLVER or not {*names, "step", "num_samples", "backend"} <= set(meta):
        raise ValueError(f"{path}: not a checkpoint of this solver; start anew with --overwrite")
    return {name: meta[name] for name in names}
