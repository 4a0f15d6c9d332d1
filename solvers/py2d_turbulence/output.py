"""The output file of a turbulence run."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import h5py
import numpy as np

from solvers.common.hdf5_utils import HDF5Writer, read_hdf5_info
from solvers.common.provenance import provenance
from solvers.py2d_turbulence.config import RunConfig
from solvers.py2d_turbulence.diagnostics import Diagnostics
from solvers.py2d_turbulence.grid import DOMAIN_LENGTH, coordinates
from solvers.py2d_turbulence.state import State

SCHEME = "ab2cn"


def create_output(path: Path, config: RunConfig, *, compression: str | None, overwrite: bool) -> HDF5Writer:
    """Return the writer of a new output file.

    Raises:
        FileExistsError: if the file exists and is not to be overwritten.
        OSError: if it cannot be written.
    """
    axis = coordinates(config.NX)
    return HDF5Writer(
        path,
        fields={"vorticity": (config.NX, config.NX)},
        coordinates={"x": axis, "y": axis},
        metadata={
            **{name: "" if value is None else value for name, value in config.parameters().items()},
            "solver": "py2d_turbulence",
            "scheme": SCHEME,
            "nu": config.nu,
            "boundary_x": "periodic",
            "boundary_y": "periodic",
            "grid_y": "uniform",
            "length_x": DOMAIN_LENGTH,
            "length_y": DOMAIN_LENGTH,
            **provenance(),
        },
        parameters={
            "Re": config.Re,
            "nu": config.nu,
            "alpha": config.alpha,
            "beta": config.beta,
            "fkx": float(config.fkx),
            "fky": float(config.fky),
        },
        scalars=[field.name for field in fields(Diagnostics)],
        compression=compression,
        overwrite=overwrite,
    )


def reopen_output(path: Path, *, num_samples: int, tTotal: float) -> HDF5Writer:
    """Return the writer of an output to be continued after its first `num_samples` frames.

    Raises:
        ValueError: if the file is missing, broken or shorter than that.
    """
    writer = HDF5Writer.resume(path, num_samples=num_samples)
    if read_hdf5_info(path).metadata["tTotal"] == tTotal:
        return writer
    writer.close(complete=False)  # the one parameter that a continued run may change
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs.modify("tTotal", tTotal)
    return HDF5Writer.resume(path, num_samples=num_samples)


def append_frame(writer: HDF5Writer, state: State, diagnostics: Diagnostics, *, time: float) -> None:
    """Append the vorticity and its diagnostics."""
    frame = state.vorticity.astype(np.float32)
    writer.append({"vorticity": frame}, time=time, scalars=asdict(diagnostics))
