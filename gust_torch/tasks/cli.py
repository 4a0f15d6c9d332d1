"""`scripts/train.py`: LightningCLI with this package's defaults."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

from gust_torch.data import FieldDataModule
from gust_torch.tasks.callbacks import ValidationFigures
from gust_torch.tasks.vqvae import VQVAETask

GRADIENT_CLIP = 0.5
DEFAULT_ROOT = "runs"
# torch 2.13 renamed the argument.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers"
)


class TrainCLI(LightningCLI):
    """Checkpoints (the best by val/vrmse, and the last), CSV logs, figures and DDP settings by default."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint's flags and set this package's defaults."""
        parser.add_lightning_class_args(ModelCheckpoint, "best")
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        parser.add_lightning_class_args(ValidationFigures, "figures")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.set_defaults(
            {
                "best.filename": "best",
                "best.monitor": "val/vrmse",
                "best.enable_version_counter": False,
                "last.filename": "last",
                "last.enable_version_counter": False,
                "lr_monitor.logging_interval": "step",
                "trainer.default_root_dir": DEFAULT_ROOT,
                "trainer.gradient_clip_val": GRADIENT_CLIP,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Fill in what depends on other flags: where checkpoints and logs go, and DDP's settings."""
        config = self.config[self.subcommand]
        root = Path(config.trainer.default_root_dir)
        for checkpoint in (config.best, config.last):
            if checkpoint.dirpath is None:
                checkpoint.dirpath = str(root / "checkpoints")
        if config.trainer.logger in (None, True):
            config.trainer.logger = Namespace(
                class_path="lightning.pytorch.loggers.CSVLogger",
                init_args=Namespace(save_dir=str(root), name="logs"),
            )
        if config.trainer.strategy == "ddp":
            # Codebooks are equal on all ranks by construction, and every parameter has a gradient each step.
            config.trainer.strategy = Namespace(
                class_path="lightning.pytorch.strategies.DDPStrategy",
                init_args=Namespace(),
                dict_kwargs={_SYNC_BUFFERS: False, "find_unused_parameters": False},
            )


def main(args: Sequence[str] | None = None) -> None:
    """Run `fit` or `validate`; mistakes of the user end with one line on stderr and exit code 1.

    Args:
        args: Command line without the program's name; that of the process by default.
    """
    try:
        TrainCLI(
            VQVAETask,
            FieldDataModule,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            args=None if args is None else list(args),
        )
    except (ValueError, OSError, MisconfigurationException) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
