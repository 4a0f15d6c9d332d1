"""Which samples to encode, and how; free of torch, so that command lines can show the defaults at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Compute", "DataSelection"]


@dataclass(frozen=True)
class DataSelection:
    """Which samples to encode; the names are those of `HDF5Dataset`.

    Attributes:
        data_path: a file, a glob, or a list of these.
        fields: field names; None for the channels of the checkpoint.
        sample_start: first sample.
        sample_stop: one past the last sample; None for the end.
    """

    data_path: str | Sequence[str]
    fields: Sequence[str] | None = None
    sample_start: int = 0
    sample_stop: int | None = None


@dataclass(frozen=True)
class Compute:
    """How to encode; the names are those of `lightning.pytorch.Trainer` and `torch.utils.data.DataLoader`.

    Raises:
        ValueError: if batch_size or num_workers is too small.
    """

    batch_size: int = 32
    num_workers: int = 0
    devices: str = "auto"
    accelerator: str = "auto"
    strategy: str = "auto"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"expected batch_size >= 1 and num_workers >= 0, got {self.batch_size} and {self.num_workers}"
            )
