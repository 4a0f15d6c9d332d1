"""What to encode and how; free of torch, so that the command line shows its defaults at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Request:
    """Which caches to make, and with which encoder.

    Attributes:
        tasks: Names of converted data sets, such as "burgers1d".
        splits: Of "train", "val" and "test".
        root: Folder of `<task>_<split>.h5` (or `.zarr`).
        cache_dir: Folder of the caches, `<task>_<split>/`.
        latent_dim: Features of a token; None takes what checkpoint or configuration say.
        latent_len: Tokens of a sample; None likewise.
        checkpoint: Trained `LatentAutoencoder`; without one the encoder is trained first.
        config: Configuration of the training, and of the data where they need one; by default the task's
            own in configs/autoencoder.
        untrained: Take an encoder with random weights, the same for every split, instead of a trained one.
        seed: Of the random weights and of the training; None takes 0 and the configuration's.
        limit: Samples of each split, the first ones; None for all.
        dtype: Of the stored latents.
        overwrite: Whether stale caches and trainings may be replaced.
        manifest: File that lists the caches; None for none.

    Raises:
        ValueError: A value out of range, or two that exclude each other.
    """

    tasks: Sequence[str]
    splits: Sequence[str] = SPLITS
    root: Path = Path("data/pdebench")
    cache_dir: Path = Path("data/latent_cache")
    latent_dim: int | None = None
    latent_len: int | None = None
    checkpoint: Path | None = None
    config: Path | None = None
    untrained: bool = False
    seed: int | None = None
    limit: int | None = None
    dtype: str = "float32"
    overwrite: bool = False
    manifest: Path | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for what, names in (("task", self.tasks), ("split", self.splits)):
            if not names or len(set(names)) != len(names):
                raise ValueError(f"expected one or more {what}s, each once, got {' '.join(names) or 'none'}")
        for task in self.tasks:
            if not task or Path(task).name != task or task.startswith("."):
                raise ValueError(f"{task!r} is no name of a task, expected one such as burgers1d")
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown:
            raise ValueError(f"unknown split {unknown[0]!r}, expected some of {', '.join(SPLITS)}")
        for name in ("latent_dim", "latent_len", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} >= 1, got {value}")
        if self.dtype not in DTYPES:
            raise ValueError(f"expected --dtype {' or '.join(DTYPES)}, got {self.dtype}")
        if self.checkpoint is not None and self.untrained:
            raise ValueError("--checkpoint and --untrained exclude each other; give one of them")


@dataclass(frozen=True)
class Compute:
    """How to encode; it changes no latent but in rounding. Names as in Lightning and torch.

    Attributes:
        batch_size: Samples in a batch, for each device.
        num_workers: Processes that load ahead, for each device.
        pin_memory: Load into page-locked memory where there is a GPU.
        devices: Their number, or a list such as "0,2".
        accelerator: "cpu", "gpu", ...
        strategy: Lightning strategy such as "ddp".
        num_nodes: Machines.

    Raises:
        ValueError: A number out of range.
    """

    batch_size: int = 32
    num_workers: int = 0
    pin_memory: bool = False
    devices: str = "auto"
    accelerator: str = "auto"
    strategy: str = "auto"
    num_nodes: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.batch_size < 1 or self.num_workers < 0 or self.num_nodes < 1:
            raise ValueError(
                "expected --batch-size >= 1, --num-workers >= 0 and --num-nodes >= 1, got "
                f"{self.batch_size}, {self.num_workers} and {self.num_nodes}"
            )
