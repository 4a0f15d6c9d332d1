"""What a model needs to know of its data: names, grid, boundaries, lengths. Free of torch and of files."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from solvers.common.hdf5.axes import BOUNDARIES, GRIDS, domain

# The JAX code's files say `omega`; every other name is used as it stands in the file.
SYNONYMS = {"omega": "vorticity"}

LENGTH_TOLERANCE = 1e-4

T = TypeVar("T", bound="PlainSpec")


def canonical_name(name: str) -> str:
    """Field name with synonyms resolved: ``omega`` -> ``vorticity``."""
    return SYNONYMS.get(name, name)


@dataclasses.dataclass(frozen=True)
class PlainSpec:
    """What specs share: to plain values and back."""

    def to_dict(self) -> dict[str, Any]:
        """Plain python values (lists for tuples), fit for JSON and for ``torch.load(weights_only=True)``."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """Inverse of `to_dict`.

        Raises:
            ValueError: A key is missing or unknown.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(known):
            raise ValueError(f"expected the keys {known} of a {cls.__name__}, got {sorted(values)}")
        return cls(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )


@dataclasses.dataclass(frozen=True)
class FieldSpec(PlainSpec):
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
        lengths = [length for length in self.lengths if math.isfinite(length) and length > 0]
        walls = self.grid_y != "chebyshev" or "wall" in self.boundary[1:]
        expected = {
            f"one distinct name per channel, got {self.names}": 0 < len(self.names) == len(set(self.names)),
            f"a grid (h, w) of positive sizes, got {self.grid}": len(self.grid) == 2 and min(self.grid) > 0,
            f"two boundary types out of {BOUNDARIES}, got {self.boundary}": len(self.boundary) == 2
            and set(self.boundary) <= set(BOUNDARIES),
            f"two positive domain lengths, got {self.lengths}": len(self.lengths) == len(lengths) == 2,
            f"grid_y out of {GRIDS}, got {self.grid_y!r}": self.grid_y in GRIDS,
            "boundary_y 'wall' for a chebyshev grid; set it in the metadata": walls,
        }
        if wrong := [text for text, holds in expected.items() if not holds]:
            raise ValueError(f"expected {'; '.join(wrong)}")

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return len(self.names)

    def differences(self, other: "FieldSpec") -> list[str]:
        """Return what of channels, grid and domain is different in `other`, in words."""
        there, now = (
            {
                "names": " ".join(spec.names),
                "grid": "{}x{}".format(*spec.grid),
                "boundary": " ".join(spec.boundary),
                "grid_y": spec.grid_y,
            }
            for spec in (self, other)
        )
        found = [f"{name} {there[name]}, got {now[name]}" for name in there if there[name] != now[name]]
        if not np.allclose(other.lengths, self.lengths, rtol=LENGTH_TOLERANCE, atol=0.0):
            found.append(f"lengths {self.lengths}, got {other.lengths}")
        return found

    def channel(self, name: str) -> int:
        """Index of a channel; ``omega`` and ``vorticity`` are the same.

        Raises:
            ValueError: There is no such channel.
        """
        names = [canonical_name(own) for own in self.names]
        if canonical_name(name) not in names:
            raise ValueError(f"no channel {name!r}; the channels are {', '.join(self.names)}")
        return names.index(canonical_name(name))

    @classmethod
    def from_metadata(
        cls, names: Sequence[str], coordinates: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
    ) -> "FieldSpec":
        """Spec of the fields of a common-format file, from ``x`` (H,) and ``y`` (W,) and its ``/metadata``.

        `solvers.common.hdf5.axes.domain` says what is read; the larger of ``fkx`` and ``fky`` is the forcing.
        """
        boundary, grid_y, lengths = domain(coordinates, metadata)
        forcing = max(float(metadata.get(key, 0)) for key in ("fkx", "fky"))
        grid = len(coordinates["x"]), len(coordinates["y"])
        return cls(tuple(names), grid, boundary, lengths, grid_y, forcing if forcing > 0 else None)
