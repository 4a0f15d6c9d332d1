"""The output file of a convection run."""

from pathlib import Path

import numpy as np

from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.provenance import provenance
from solvers.rayleigh_benard.config import FIELD_COMPONENTS, RBCConfig
from solvers.rayleigh_benard.diagnostics import SCALARS

PARAMETERS = ("rayleigh", "prandtl", "dT", "kappa", "nu", "seed")


def create_output(
    path: Path, config: RBCConfig, coordinates: dict[str, np.ndarray], *, num_ranks: int, overwrite: bool
) -> HDF5Writer:
    """Writer of a new output file.

    Raises:
        FileExistsError: If the file exists and is not to be overwritten.
        OSError: If it cannot be written.
    """
    shapes = {name: _frame_shape(config, name) for name in config.fields}
    return HDF5Writer(
        path,
        fields=shapes,
        coordinates=coordinates,
        metadata={
            **config.plain(),
            "solver": "rayleigh_benard",
            "boundary_x": "periodic",
            "boundary_y": "wall",
            "grid_y": config.grid,
            "length_y": 1.0,
            "cfl": config.cfl,
            "dt": config.max_dt,
            "num_ranks": num_ranks,
            **provenance(),
        },
        parameters={name: float(getattr(config, name)) for name in PARAMETERS},
        scalars=SCALARS,
        overwrite=overwrite,
    )


def _frame_shape(config: RBCConfig, name: str) -> tuple[int, ...]:
    """(nx, nz) or (nx, nz, components)."""
    components = FIELD_COMPONENTS[name]
    return (*config.resolution, components) if components else config.resolution
