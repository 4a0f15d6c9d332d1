"""The command line of `scripts/precompute_latent_cache.py`; imports neither torch nor Lightning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from solvers.common.cli import parse, run_command
from solvers.common.splits import SPLITS

DESCRIPTION = (
    "Encode converted data once and keep the latents in CACHE_DIR/TASK_SPLIT/. Without --checkpoint or "
    "--untrained the autoencoder of each task is trained first."
)


@dataclass(frozen=True)
class Request:
    """Which caches to make, with which encoder, and how.

    Attributes:
        tasks: Converted data sets, such as burgers1d.
        splits: Which of train, val and test.
        root: Folder of TASK_SPLIT.h5 or .zarr.
        cache_dir: Folder of the caches, TASK_SPLIT/.
        limit: The first N samples of each split; whole trajectories of particles. All by default.
        dtype: Of the stored latents.
        overwrite: Replace stale or damaged caches and stale trainings.
        verify: Make nothing; read the caches that are there and compare every byte with their checksums.
        checkpoint: Trained autoencoder, of scripts/train.py; without one it is trained first.
        untrained: Take random weights, the same for every split, instead of a training.
        config: Configuration of training and data; by default the task's own in configs/autoencoder.
        latent_dim: Features of a token; by default as checkpoint or configuration say.
        latent_len: Tokens of a sample; by default as checkpoint or configuration say.
        seed: Of --untrained (default 0) and of the training (by default the configuration's).
        batch_size: Samples in a batch, for each device.
        num_workers: Reading processes for each device.
        pin_memory: Load into page-locked memory, where there is a GPU.
        devices: Number of devices, or a list such as 0,2.
        accelerator: cpu, gpu, ...
        strategy: Lightning strategy such as ddp.
        num_nodes: Machines, each started by torchrun or SLURM.

    Raises:
        ValueError: A value out of range, or two that exclude each other.
    """

    tasks: tuple[str, ...]
    splits: tuple[str, ...] = SPLITS
    root: Path = Path("data/pdebench")
    cache_dir: Path = Path("data/latent_cache")
    limit: int | None = None
    dtype: Literal["float32", "float16"] = "float32"
    overwrite: bool = False
    verify: bool = False
    checkpoint: Path | None = None
    untrained: bool = False
    config: Path | None = None
    latent_dim: int | None = None
    latent_len: int | None = None
    seed: int | None = None
    batch_size: int = 32
    num_workers: int = 0
    pin_memory: bool = False
    devices: str = "auto"
    accelerator: str = "auto"
    strategy: str = "auto"
    num_nodes: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        for flag, names in (("--tasks", self.tasks), ("--splits", self.splits)):
            if not names or len(set(names)) != len(names):
                raise ValueError(f"expected one or more {flag}, each once, got {' '.join(names) or 'none'}")
        if bad := [task for task in self.tasks if Path(task).name != task or task.startswith(".")]:
            raise ValueError(f"--tasks: {bad[0]!r} is no name of a data set, such as burgers1d")
        if unknown := [split for split in self.splits if split not in SPLITS]:
            raise ValueError(f"--splits: unknown split {unknown[0]!r}, expected some of {', '.join(SPLITS)}")
        least = {"num_workers": 0, "latent_dim": 1, "latent_len": 1, "limit": 1, "batch_size": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"expected --{name.replace('_', '-')} >= {smallest}, got {value}")
        if self.checkpoint is not None and self.untrained:
            raise ValueError("--checkpoint and --untrained exclude each other; give one of them")
        if self.verify and self.overwrite:
            raise ValueError("--verify changes nothing; leave --overwrite out")


def main(argv: list[str] | None = None) -> int:
    """Make the caches and print a line for each; mistakes become one line and exit code 1."""
    return run_command(lambda: _run(argv))


def _run(argv: list[str] | None) -> None:
    request = parse(Request, argv, prog="python scripts/precompute_latent_cache.py", description=DESCRIPTION)
    # Here, since torch and Lightning take seconds to import, which --help need not wait for.
    if request.verify:
        from gust_torch.latents.cache import verify

        verify([request.cache_dir / f"{task}_{split}" for task in request.tasks for split in request.splits])
        return
    from gust_torch.precompute.pipeline import precompute

    precompute(request, report=lambda line: print(line, flush=True))
