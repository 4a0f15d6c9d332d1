"""What is read off a running simulation: frames, horizontal means, and what limits the time step.

Reading works on copies. The state stays in coefficient space, untouched to the last bit, so that a run gives
the same numbers however often it is looked at.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from solvers.rayleigh_benard.config import FIELD_COMPONENTS
from solvers.rayleigh_benard.diagnostics import Profiles
from solvers.rayleigh_benard.generate_rbc import DEALIAS, RayleighBenard, d3
from solvers.rayleigh_benard.grids import grid_spacing, interpolation_matrix, uniform_nodes


@dataclass(frozen=True)
class Probe:
    """State of the flow between frames.

    Attributes:
        rate: CFL frequency max(|u|/dx + |w|/dz), spacings of the undealiased grid.
        max_speed: max sqrt(u^2 + w^2).
        finite: whether every coefficient of u and b is finite.
    """

    rate: float
    max_speed: float
    finite: bool


class Sampler:
    """Reads a simulation; every method is collective over its ranks."""

    def __init__(self, flow: RayleighBenard) -> None:
        self._flow = flow
        self._copies = {"b": flow.scalar("b_copy"), "p": flow.scalar("p_copy"), "u": flow.vector("u_copy")}
        self._grad_b, self._grad_u = d3.grad(flow.b), d3.grad(flow.u)
        nx, nz = flow.config.resolution
        z = flow.bases[1].local_grid(flow.dist, scale=DEALIAS)
        self._spacing = flow.config.length_x / nx, grid_spacing(nz, z)
        self._to_output = (
            interpolation_matrix(nz, uniform_nodes(nz)) if flow.config.grid == "uniform" else None
        )

    def coordinates(self) -> dict[str, np.ndarray]:
        """Points of the frames: "x" (nx,) and "y" (nz,)."""
        x, z = (basis.global_grid(self._flow.dist, scale=1).ravel() for basis in self._flow.bases)
        return {"x": x, "y": z if self._to_output is None else uniform_nodes(len(z))}

    def frame(self) -> dict[str, np.ndarray]:
        """Return the configured fields on the output grid, (nx, nz[, 2]) float64, on rank 0; empty
        elsewhere."""
        frames = {}
        for name in self._flow.config.fields:
            values = self._output_field(name).gather_data(root=0, layout="g")
            if self._flow.comm.rank == 0:
                if self._to_output is not None:
                    values = values @ self._to_output.T
                frames[name] = np.moveaxis(values, 0, -1) if FIELD_COMPONENTS[name] else values
        return frames

    def probe(self) -> Probe:
        """CFL frequency, largest speed and finiteness."""
        dx, dz = self._spacing
        u, w = self._on_grid("u")
        rate, speed_squared = np.abs(u) / dx + np.abs(w) / dz, u**2 + w**2
        values = np.array([rate.max(initial=0.0), speed_squared.max(initial=0.0)])
        finite = all(np.isfinite(field["c"]).all() for field in (self._flow.b, self._flow.u))
        bad = not (finite and np.isfinite(values).all())
        # The order of NaN under MPI.MAX is undefined, so bad values travel as a flag.
        message = np.array([0.0, 0.0, 1.0] if bad else [*values, 0.0])
        self._flow.comm.Allreduce(MPI.IN_PLACE, message, op=MPI.MAX)
        return Probe(float(message[0]), float(message[1]) ** 0.5, finite=message[2] == 0)

    def profiles(self) -> Profiles:
        """Horizontal means on the dealiased grid, whole on every rank."""
        flow = self._flow
        b, (u, w) = self._on_grid("b"), self._on_grid("u")
        grad_b, grad_u = (_grid(operator.evaluate(), DEALIAS) for operator in (self._grad_b, self._grad_u))
        speed_squared = u**2 + w**2
        squares = np.sum(grad_b**2, axis=0), np.sum(grad_u**2, axis=(0, 1))
        local = [values.mean(axis=0) for values in (b, b**2, grad_b[1], w * b, *squares, speed_squared)]
        columns = flow.dist.grid_layout.slices(flow.b.domain, DEALIAS)[1]
        rows = np.zeros((len(local) + 1, flow.bases[1].grid_shape((DEALIAS,))[0]))
        rows[:-1, columns] = local
        rows[-1, columns] = speed_squared.max(axis=0, initial=0.0)
        # Ranks hold different columns, zero elsewhere: their sum is the whole.
        flow.comm.Allreduce(MPI.IN_PLACE, rows, op=MPI.SUM)
        b_mean, b_squared, b_gradient, flux, thermal, kinetic, energy, speeds = rows
        max_speed = float(speeds.max()) ** 0.5
        return Profiles(b_mean, b_squared, b_gradient, flux, thermal, kinetic, energy, max_speed)

    def _on_grid(self, name: str) -> np.ndarray:
        """Local values of b, p or u on the dealiased grid."""
        return _grid(self._copy(name), DEALIAS)

    def _output_field(self, name: str) -> Any:
        """Return a field ready to be read on the undealiased grid."""
        field = (
            self._flow.vorticity.evaluate()
            if name == "vorticity"
            else self._copy({"buoyancy": "b", "pressure": "p", "velocity": "u"}[name])
        )
        field.change_scales(1)
        return field

    def _copy(self, name: str) -> Any:
        """Copy of a field of the state, in coefficient space."""
        source: Any = getattr(self._flow, name)
        copy = self._copies[name]
        copy["c"] = source["c"]
        return copy


def _grid(field: Any, scales: float) -> np.ndarray:
    """Local grid values of a field."""
    field.change_scales(scales)
    values: np.ndarray = field["g"]
    return values
