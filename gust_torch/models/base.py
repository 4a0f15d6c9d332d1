"""What all models share: what rebuilds them, and the statistics of their data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gust_torch.models.points import Spec


class Model(nn.Module):
    """A module that `type(model)(model.spec, **model.architecture())` builds anew, but for its weights.

    Args:
        spec: What the data are.
        arguments: `locals()` of the constructor, with values as they shall be given again.
    """

    def __init__(self, spec: Spec, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = spec
        names = [name for name in inspect.signature(type(self)).parameters if name != "spec"]
        self._architecture = {name: _lists(arguments[name]) for name in names}

    def architecture(self) -> dict[str, Any]:
        """Return the constructor arguments besides `spec`, as plain Python values."""
        return dict(self._architecture)


class FieldModel(Model):
    """A model that takes and gives physical values, and normalizes them inside.

    Attributes:
        mean: Of each channel of the training data.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, arguments: Mapping[str, Any], *more_axes: int) -> None:
        super().__init__(spec, arguments)
        self.register_buffer("mean", torch.zeros(spec.num_channels, *more_axes))
        self.register_buffer("std", torch.ones(spec.num_channels, *more_axes))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the normalization, c values each.

        Raises:
            ValueError: If a standard deviation is not positive and finite.
        """
        if not bool((torch.isfinite(std) & (std > 0) & torch.isfinite(mean)).all()):
            raise ValueError(
                f"statistics of fields {list(self.spec.names)} must be finite with std > 0, got mean "
                f"{mean.flatten().tolist()}, std {std.flatten().tolist()}; leave constant fields out "
                "with --data.fields"
            )
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.std.copy_(std.reshape(self.std.shape))


def _lists(value: Any) -> Any:
    """Turn tuples into lists."""
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
