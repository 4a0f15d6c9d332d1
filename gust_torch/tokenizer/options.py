"""Options of the commands on a checkpoint and its data; free of torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataOptions:
    """A checkpoint, the samples to put through it, and how.

    Attributes:
        checkpoint: checkpoint of scripts/train.py
        data_path: files in the common format, or a glob
        fields: field names; by default those of the checkpoint
        sample_start: first sample
        sample_stop: one past the last sample; by default the end
        batch_size: samples in a batch, for each device
        num_workers: reading processes for each device
        accelerator: cpu, gpu, mps, ...
        search: codes of the finest scale to try for each token, where the least error of the decoded field
            decides instead of the nearest code; a frame then takes 4 N passes of the decoder
        config_path: as the JAX code has it; not needed, since a checkpoint holds its own configuration
    """

    checkpoint: str
    data_path: tuple[str, ...]
    fields: tuple[str, ...] | None = None
    sample_start: int = 0
    sample_stop: int | None = None
    batch_size: int = 32
    num_workers: int = 0
    accelerator: str = "auto"
    search: int = 0
    config_path: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers, and take "[buoyancy,vorticity]" as scripts/train.py does."""
        if not self.data_path:
            raise ValueError("--data-path names no file; give one or more")
        for name, least in {"batch_size": 1, "num_workers": 0, "search": 0, "check_samples": 1}.items():
            if getattr(self, name, least) < least:
                raise ValueError(f"expected {name} >= {least}, got {getattr(self, name)}")
        if self.fields is not None:
            names = " ".join(self.fields).strip("[]").replace(",", " ").split()
            object.__setattr__(self, "fields", tuple(names))


@dataclass(frozen=True)
class TokenOptions(DataOptions):
    """What both commands of the tokenizer take.

    Attributes:
        fit_from: use the vocabulary of this token file; unseen codes take a neighbor
        devices: number of devices, or a list such as 0,2
        strategy: Lightning strategy such as ddp
    """

    fit_from: str | None = None
    devices: str = "auto"
    strategy: str = "auto"


@dataclass(frozen=True)
class InfoOptions(TokenOptions):
    """Of `info`.

    Attributes:
        check_samples: evenly spaced samples to decode again
    """

    check_samples: int = 256


@dataclass(frozen=True, kw_only=True)
class SaveOptions(TokenOptions):
    """Of `save`.

    Attributes:
        output: token file to write
        overwrite: replace an existing --output
    """

    output: str
    overwrite: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """Of `export`.

    Attributes:
        tokens: token file of `save`
        output: file to write
        layout: that of gust2 (square scales only)
        overwrite: replace an existing --output
    """

    tokens: str
    output: str
    layout: Literal["gust2"] = "gust2"
    overwrite: bool = False
