"""Checkpoints of a turbulence run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solvers.common.checkpoint import Checkpoint, save_checkpoint
from solvers.py2d_turbulence.config import ParameterValue, RunConfig
from solvers.py2d_turbulence.fft import export_wisdom
from solvers.py2d_turbulence.state import State

_SOLVER = "py2d_turbulence"


@dataclass(frozen=True)
class Saved:
    """A stopped run, as its checkpoint has it.

    Attributes:
        parameters: the run's parameters by the names of their flags.
        state: the state.
        num_samples: frames in the output at that moment.
        backend: what computed it, for example "pyfftw+numba".
    """

    parameters: dict[str, ParameterValue]
    state: State
    num_samples: int
    backend: str


def write_checkpoint(path: Path, config: RunConfig, state: State, *, num_samples: int, backend: str) -> None:
    """Replace the checkpoint atomically.

    Raises:
        OSError: if the disk is full; the checkpoint before stays.
    """
    save_checkpoint(
        path,
        {"omega_hat": state.omega_hat, "advection_hat": state.advection_hat, **export_wisdom()},
        {
            **config.parameters(),
            "solver": _SOLVER,
            "step": state.step,
            "num_samples": num_samples,
            "backend": backend,
        },
    )


def read_checkpoint(path: Path, checkpoint: Checkpoint) -> Saved:
    """Interprets a checkpoint.

    Raises:
        ValueError: if it is not one of this solver.
    """
    meta, names = checkpoint.meta, RunConfig().parameters()
    expected = {*names, "step", "num_samples", "backend"}
    if meta.get("solver") != _SOLVER or not expected <= set(meta):
        raise ValueError(f"{path}: not a checkpoint of this solver; start anew with --overwrite")
    state = State(checkpoint.arrays["omega_hat"], checkpoint.arrays["advection_hat"], int(str(meta["step"])))
    parameters = {name: meta[name] for name in names}
    return Saved(parameters, state, int(str(meta["num_samples"])), str(meta["backend"]))
