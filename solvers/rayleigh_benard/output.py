"""The output file and the checkpoint of a convection run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from solvers.common.checkpoint import check_parameters, load_checkpoint, save_checkpoint
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.provenance import provenance
from solvers.rayleigh_benard.config import FIELD_COMPONENTS, RBCConfig
from solvers.rayleigh_benard.diagnostics import SCALARS
from solvers.rayleigh_benard.stepsize import StepClock

if TYPE_CHECKING:  # configuration and output need no Dedalus
    from solvers.rayleigh_benard.generate_rbc import RayleighBenard

logger = logging.getLogger(__name__)

PARAMETERS = ("rayleigh", "prandtl", "dT", "kappa", "nu", "seed")
COUNTERS = ("n", "j", "frame", "iteration", "changes")
# A run may go on longer, and with smaller steps after it blew up; all else makes it another run.
CHANGEABLE = ("stop_sim_time", "safety_factor")


def create_output(
    path: Path, config: RBCConfig, coordinates: dict[str, np.ndarray], *, num_ranks: int, overwrite: bool
) -> HDF5Writer:
    """Return the writer of a new output file."""
    # (nx, nz), or (nx, nz, components)
    shapes = {
        name: (*config.resolution, FIELD_COMPONENTS[name]) if FIELD_COMPONENTS[name] else config.resolution
        for name in config.fields
    }
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


@dataclass(frozen=True)
class Saved:
    """A stopped run.

    Attributes:
        arrays: coefficients of every variable by its name, whole.
        counters: those of the clock, and "num_ranks".
    """

    arrays: Mapping[str, np.ndarray]
    counters: Mapping[str, int]


def gather_state(flow: "RayleighBenard") -> dict[str, np.ndarray]:
    """Coefficients of every variable, whole, on rank 0; empty elsewhere. Collective."""
    gathered = {field.name: field.gather_data(root=0, layout="c") for field in flow.solver.state}
    return gathered if flow.comm.rank == 0 else {}


def write_checkpoint(
    path: Path, flow: "RayleighBenard", clock: StepClock, arrays: Mapping[str, np.ndarray]
) -> None:
    """Save a state from `gather_state`; rank 0 only. Where the disk is full, the one before stays."""
    counters = {name: getattr(clock, name) for name in COUNTERS}
    save_checkpoint(path, arrays, {**flow.config.plain(), **counters, "num_ranks": flow.comm.size})


def read_checkpoint(path: Path, config: RBCConfig) -> Saved:
    """State and counters of a stopped run, a ValueError if it is of other parameters; rank 0 only."""
    checkpoint = load_checkpoint(path)
    meta = dict(checkpoint.meta)
    counters = {
        name: value for name in (*COUNTERS, "num_ranks") if isinstance(value := meta.pop(name, None), int)
    }
    if len(counters) <= len(COUNTERS):
        raise ValueError(f"{path}: expected a checkpoint of this solver; start again with --overwrite")
    check_parameters(path, meta, config.plain(), apart_from=CHANGEABLE)
    if config.num_intervals < counters["frame"] + (counters["j"] > 0):
        raise ValueError(
            f"stop_sim_time: the run to resume is past {config.stop_sim_time:g} already; give a later time"
        )
    return Saved(checkpoint.arrays, counters)


def restore(flow: "RayleighBenard", clock: StepClock, saved: Saved | None) -> None:
    """Set state and clock on every rank from what rank 0 read (None elsewhere). Collective.

    One-step schemes go on bit for bit on the same number of ranks. Multistep schemes have lost their earlier
    steps and start anew, as at time 0, with their first-order relative: one step with an error of O(dt^2).
    """
    saved = flow.comm.bcast(saved)
    assert saved is not None
    for name in COUNTERS:
        setattr(clock, name, saved.counters[name])
    for field in flow.solver.state:
        field.preset_layout("c")
        local = (slice(None),) * len(field.tensorsig) + field.dist.coeff_layout.slices(field.domain, 1)
        np.copyto(field.data, saved.arrays[field.name][local])
    if saved.counters["num_ranks"] != flow.comm.size:
        logger.info("resumed on another number of ranks: equal to round-off, not bit for bit")
    if not flow.config.one_step:
        logger.info("%s restarts with one step of first order", flow.config.timestepper)
