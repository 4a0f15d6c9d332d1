"""From field names to channels: vector fields are taken apart, synonyms resolved."""

import dataclasses
from collections.abc import Mapping, Sequence

from gust_torch.spec import canonical_name

COMPONENTS = ("x", "y", "z")


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of an item.

    Attributes:
        name: Channel name, ``vorticity`` or ``velocity_x``.
        field: Name of the field in the file.
        component: Index on the field's last axis; None for a scalar field.
    """

    name: str
    field: str
    component: int | None = None


def select_channels(
    path: str, frame_shapes: Mapping[str, tuple[int, ...]], fields: str | Sequence[str] | None
) -> tuple[Channel, ...]:
    """Channels that field names stand for; all of the file, in its order, for None.

    Args:
        path: The file, for messages.
        frame_shapes: Field name -> (H, W) or (H, W, C), in the order of the file.
        fields: Names of fields (a vector field stands for its components) or of components (``velocity_x``).

    Raises:
        ValueError: A field or component is not in the file.
    """
    groups = {name: _channels_of(path, name, shape) for name, shape in frame_shapes.items()}
    if fields is None:
        return tuple(channel for group in groups.values() for channel in group)
    by_name = {canonical_name(name): list(group) for name, group in groups.items()}
    by_name |= {channel.name: [channel] for group in groups.values() for channel in group}
    chosen: list[Channel] = []
    for name in [fields] if isinstance(fields, str) else fields:
        if canonical_name(name) not in by_name:
            raise ValueError(f"{path}: no field {name!r}; available: {', '.join(by_name) or 'none'}")
        chosen += by_name[canonical_name(name)]
    if not chosen:
        raise ValueError(f"{path}: no field chosen; available: {', '.join(by_name) or 'none'}")
    return tuple(chosen)


def _channels_of(path: str, field: str, shape: tuple[int, ...]) -> list[Channel]:
    """Channels of one field."""
    name = canonical_name(field)
    if len(shape) == 2:
        return [Channel(name, field)]
    if len(shape) != 3:
        raise ValueError(
            f"{path}: field {field!r} has frames of shape {shape}; expected (H, W) or (H, W, components)"
        )
    suffixes = COMPONENTS[: shape[2]] if shape[2] <= len(COMPONENTS) else map(str, range(shape[2]))
    return [Channel(f"{name}_{suffix}", field, i) for i, suffix in enumerate(suffixes)]
