"""What a model needs to know of fields on meshes or particles. Free of torch and of files."""

import dataclasses

from gust_torch.spec import PlainSpec

AXES = "xyz"


@dataclasses.dataclass(frozen=True)
class GraphSpec(PlainSpec):
    """Fields on the nodes of graphs that differ in size.

    Attributes:
        fields: Names of the node fields, as in the items.
        components: Number of components of each field.
        num_dims: Dimensions d of space.
        moving: Positions and fields depend on time: each time of an item is a sample of its own.

    Raises:
        ValueError: A value that none of the above allows.
    """

    fields: tuple[str, ...]
    components: tuple[int, ...]
    num_dims: int
    moving: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if not 0 < len(self.fields) == len(set(self.fields)):
            raise ValueError(f"expected one or more distinct field names, got {self.fields}")
        if len(self.components) != len(self.fields) or min(self.components) < 1:
            raise ValueError(
                f"expected a positive number of components for each field, got {self.components}"
            )
        if not 1 <= self.num_dims <= len(AXES):
            raise ValueError(f"expected 1 to {len(AXES)} dimensions, got {self.num_dims}")

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names: scalars keep theirs, vectors become `velocities_x`, ..., others `name_0`, ..."""
        names: list[str] = []
        for field, n in zip(self.fields, self.components, strict=True):
            suffixes = AXES[:n] if n == self.num_dims else map(str, range(n))
            names += [field] if n == 1 else [f"{field}_{suffix}" for suffix in suffixes]
        return tuple(names)

    @property
    def num_channels(self) -> int:
        """Number of channels, all components together."""
        return sum(self.components)
