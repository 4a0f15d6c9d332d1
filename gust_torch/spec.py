"""What a model needs to know of its data: names, grid, boundaries, lengths. Free of torch and of files."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from solvers.common.hdf5.axes import BOUNDARIES, GRIDS, domain

# The JAX code's files say `omega`; every other name is used as it stands in the file.
SYNONYMS = {"omega": "vorticity"}

LENGTH_TOLERANCE = 1e-4


def canonical_name(name: str) -> str:
    """Field name with synonyms resolved: ``omega`` -> ``vorticity``."""
    return SYNONYMS.get(name, name)


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """Channels, grid and domain of a set of fields.

    Attributes:
        names: Channel names, one per channel; vector fields appear as ``velocity_x``, ``velocity_y``.
        grid: Grid points (h, w): along x, along y (z in convection).
        boundary: Per axis "periodic" or "wall".
        lengths: Domain lengths (L_x, L_y), in the units of the file's coordinates.
        grid_y: "uniform" or "chebyshev", the nodes along the second axis.
        forcing_wavenumber: Wavenumber at which energy is put in, where the data say; None otherwise.

    Raises:
        ValueError: A value that none of the above allows.
    """

    names: tuple[str, ...]
    grid: tuple[int, int]
    boundary: tuple[str, str] = ("periodic", "periodic")
    lengths: tuple[float, float] = (2 * math.pi, 2 * math.pi)
    grid_y: str = "uniform"
    forcing_wavenumber: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"expected one distinct name per channel, got {self.names}")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"expected a grid (h, w) of positive sizes, got {self.grid}")
        if len(self.boundary) != 2 or not set(self.boundary) <= set(BOUNDARIES):
            raise ValueError(f"expected two boundary types out of {BOUNDARIES}, got {self.boundary}")
        if len(self.lengths) != 2 or not all(math.isfinite(length) and length > 0 for length in self.lengths):
            raise ValueError(f"expected two positive domain lengths, got {self.lengths}")
        if self.grid_y not in GRIDS:
            raise ValueError(f"expected grid_y out of {GRIDS}, got {self.grid_y!r}")
        if self.grid_y == "chebyshev" and self.boundary[1] != "wall":
            raise ValueError("a chebyshev grid needs boundary[1] 'wall'; set boundary_y in the metadata")

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return len(self.names)

    def differences(self, other: "FieldSpec") -> list[str]:
        """Return what of channels, grid and domain is different in `other`, in words."""
        differences = [
            f"{what} {there}, got {now}"
            for what, there, now in (
                ("names", " ".join(self.names), " ".join(other.names)),
                ("grid", "{}x{}".format(*self.grid), "{}x{}".format(*other.grid)),
                ("boundary", " ".join(self.boundary), " ".join(other.boundary)),
                ("grid_y", self.grid_y, other.grid_y),
            )
            if there != now
        ]
        if not np.allclose(other.lengths, self.lengths, rtol=LENGTH_TOLERANCE, atol=0.0):
            differences.append(f"lengths {self.lengths}, got {other.lengths}")
        return differences

    def channel(self, name: str) -> int:
        """Index of a channel; ``omega`` and ``vorticity`` are the same.

        Raises:
            ValueError: There is no such channel.
        """
        wanted = canonical_name(name)
        for i, own in enumerate(self.names):
            if canonical_name(own) == wanted:
                return i
        raise ValueError(f"no channel {name!r}; the channels are {', '.join(self.names)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain python values (lists for tuples), fit for JSON and for ``torch.load(weights_only=True)``."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FieldSpec":
        """Inverse of `to_dict`.

        Raises:
            ValueError: A key is missing or unknown.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(known):
            raise ValueError(f"expected the keys {known} of a field spec, got {sorted(values)}")
        forcing = values["forcing_wavenumber"]
        return cls(
            names=tuple(str(name) for name in values["names"]),
            grid=(int(values["grid"][0]), int(values["grid"][1])),
            boundary=(str(values["boundary"][0]), str(values["boundary"][1])),
            lengths=(float(values["lengths"][0]), float(values["lengths"][1])),
            grid_y=str(values["grid_y"]),
            forcing_wavenumber=None if forcing is None else float(forcing),
        )

    @classmethod
    def from_metadata(
        cls, names: Sequence[str], coordinates: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
    ) -> "FieldSpec":
        """Spec of the fields of a common-format file.

        Absent metadata mean: periodic axes, a uniform grid, lengths from the coordinates (`axis_length`), no
        forcing wavenumber. Files of the JAX code do not name their grid: where ``grid_y`` is absent and y
        holds Chebyshev nodes, the y axis is a Chebyshev one between walls.

        Args:
            names: Channel names.
            coordinates: ``x`` (H,) and ``y`` (W,).
            metadata: Attributes of ``/metadata``; read are ``boundary_x|y``, ``grid_y``, ``length_x|y``,
                ``fkx`` and ``fky``.

        Raises:
            ValueError: Metadata or coordinates that make no sense.
        """
        boundary, grid_y, lengths = domain(coordinates, metadata)
        forcing = [float(metadata[key]) for key in ("fkx", "fky") if key in metadata]
        return cls(
            names=tuple(names),
            grid=(len(coordinates["x"]), len(coordinates["y"])),
            boundary=boundary,
            lengths=lengths,
            grid_y=grid_y,
            forcing_wavenumber=max(forcing) if forcing and max(forcing) > 0 else None,
        )
