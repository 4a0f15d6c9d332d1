"""`scripts/train.py`: LightningCLI with this package's defaults."""

import inspect
import logging
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

from gust_torch.data.datamodule import FieldDataModule
from gust_torch.tasks.callbacks import ValidationFigures
from gust_torch.tasks.progress import TrainingProgress
from gust_torch.tasks.vqvae import VQVAETask
from gust_torch.terminal import silence_lightning
from solvers.common.cli import one_line

GRADIENT_CLIP = 0.5
DEFAULT_ROOT = "runs"
# torch 2.13 renamed the argument.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers"
)

_NO_SUBTYPE = "Does not validate against any of the Union subtypes"
_OTHER_WEIGHTS = "Error(s) in loading state_dict"
_BAD_CLASS = re.compile(r"Problem with given class_path '([\w.]+)':\s*(.+)")


class TrainCLI(LightningCLI):
    """Checkpoints (the best by val/vrmse, and the last), CSV logs, figures and DDP settings by default."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint's flags and set this package's defaults."""
        parser.add_lightning_class_args(ModelCheckpoint, "best")
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        parser.add_lightning_class_args(ModelCheckpoint, "recent")
        if not self.subclass_mode_model:  # figures of tokens are those of the default task
            parser.add_lightning_class_args(ValidationFigures, "figures")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.add_lightning_class_args(TrainingProgress, "progress")
        parser.add_argument(
            "--training.latent_cache_dir",
            type=str | None,
            default=None,
            help="folder of scripts/precompute_latent_cache.py; training streams its latents from there",
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="train anew where trainer.default_root_dir holds the checkpoints of an earlier training",
        )
        parser.set_defaults(
            {
                "best.filename": "best",
                "best.monitor": "val/vrmse",
                "best.enable_version_counter": False,
                "last.filename": "last",
                "last.enable_version_counter": False,
                "last.save_on_train_epoch_end": True,  # also where validation is rare or the run ends between
                "recent.filename": "last",  # the same file, within long epochs too
                "recent.enable_version_counter": False,
                "recent.train_time_interval": timedelta(minutes=10),
                "lr_monitor.logging_interval": "step",
                "trainer.default_root_dir": DEFAULT_ROOT,
                "trainer.enable_model_summary": False,  # the tasks say how large their models are
                "trainer.gradient_clip_val": GRADIENT_CLIP,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Check what depends on several flags, and fill in DDP's settings."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit":
            _refuse_earlier_training(config)
        _hand_over_cache_dir(config)
        config.progress.enabled &= config.trainer.enable_progress_bar is not False
        config.trainer.enable_progress_bar = False  # ours takes its place
        if isinstance(config.trainer.logger, Namespace) and "init_args" in config.trainer.logger:
            options = config.trainer.logger.init_args
            if options.get("save_dir") == ".":  # W&B's default; config.yaml goes there too
                options.save_dir = config.trainer.default_root_dir
        if config.trainer.strategy == "ddp":
            # Codebooks are equal on all ranks by construction, and every parameter has a gradient each step.
            config.trainer.strategy = Namespace(
                class_path="lightning.pytorch.strategies.DDPStrategy",
                init_args=Namespace(),
                dict_kwargs={_SYNC_BUFFERS: False, "find_unused_parameters": False},
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Put checkpoints and logs below `trainer.default_root_dir`.

        Here and not in the configuration, which is saved: run again, it may name another folder.
        """
        made = self.config_init[self.subcommand]
        for checkpoint in (made.best, made.last, made.recent):
            checkpoint.dirpath = _checkpoint_folder(checkpoint.dirpath, made.trainer)
        if made.trainer.logger in (None, True):
            kwargs["logger"] = CSVLogger(save_dir=made.trainer.default_root_dir, name="logs")
        return super().instantiate_trainer(**kwargs)


def _checkpoint_folder(given: str | None, trainer: Namespace) -> str:
    """Return the given one, else a folder below `trainer.default_root_dir`."""
    return str(Path(trainer.default_root_dir) / "checkpoints") if given is None else given


def _refuse_earlier_training(config: Namespace) -> None:
    """Keep a new training from replacing an older one.

    Raises:
        ValueError: The folder holds checkpoints, and neither their continuation nor their end was asked for.
    """
    newest = Path(_checkpoint_folder(config.last.dirpath, config.trainer), f"{config.last.filename}.ckpt")
    is_first = getattr(rank_zero_only, "rank", 0) == 0  # the others start while it writes
    if is_first and newest.exists() and config.ckpt_path is None and not config.overwrite:
        raise ValueError(
            f"{newest} is of an earlier training; continue it with --ckpt_path last, choose another folder "
            "with --trainer.default_root_dir, or replace it with --overwrite true"
        )


def _hand_over_cache_dir(config: Namespace) -> None:
    """Give `training.latent_cache_dir`, where set, to the data module.

    Raises:
        ValueError: The data module has no `latent_cache_dir`, or another one was given to it.
    """
    folder = config.training.latent_cache_dir
    if folder is None:
        return
    options = config.data.get("init_args", config.data)
    if "latent_cache_dir" not in options:
        name = config.data.get("class_path", FieldDataModule.__name__).rpartition(".")[-1]
        raise ValueError(
            f"training.latent_cache_dir={folder} is set, but {name} reads no latent cache; leave it out, or "
            "choose the data module gust_torch.LatentDataModule"
        )
    if options.latent_cache_dir not in (None, folder):
        raise ValueError(
            f"training.latent_cache_dir={folder} and data.init_args.latent_cache_dir="
            f"{options.latent_cache_dir} differ; give the first alone"
        )
    options.latent_cache_dir = folder


def main(args: Sequence[str] | None = None) -> None:
    """Run `fit` or `validate`; mistakes of the user end with one line on stderr and exit code 1.

    The task is `VQVAETask` and the data `FieldDataModule`, whose arguments are flags themselves
    (`--model.base_channels`), unless a config file or a flag names a class for one of them (`class_path`,
    `--model package.Class`): then any task or data module will do, as in LightningCLI's subclass mode.

    Args:
        args: Command line without the program's name; that of the process by default.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    silence_lightning()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    if getattr(rank_zero_only, "rank", 0) == 0:  # Lightning finds it as it is imported
        logging.getLogger("gust_torch").setLevel(logging.INFO)
    # Without this the parser prints a hundred lines of usage in front of the one that says what is wrong.
    one_line_errors = {"exit_on_error": False, "allow_abbrev": False}
    try:
        names_model, names_data = (names_class(arguments, key) for key in ("model", "data"))
        TrainCLI(
            LightningModule if names_model else VQVAETask,
            LightningDataModule if names_data else FieldDataModule,
            subclass_mode_model=names_model,
            subclass_mode_data=names_data,
            parser_kwargs={**one_line_errors, **dict.fromkeys(TrainCLI.subcommands(), one_line_errors)},
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            args=None if args is None else arguments,
        )
    except (ValueError, OSError, MisconfigurationException, ArgumentError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _OTHER_WEIGHTS not in str(error):
            raise  # no mistake of the user
        print(f"error: {one_line(_reason(error))}", file=sys.stderr)
        sys.exit(1)


def _reason(error: Exception) -> Exception:
    """Return what a class says of its arguments, without jsonargparse's many lines around it in subclass
    mode."""
    while str(error).startswith(_NO_SUBTYPE) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if _OTHER_WEIGHTS in str(error):
        return ValueError(
            "the checkpoint to continue from is of another architecture; give the settings of its training, "
            "or train anew without --ckpt_path"
        )
    found = _BAD_CLASS.search(str(error))
    if found:
        return ValueError(f"{found[1].rpartition('.')[2]}: {found[2]}; `fit --help` lists what there is")
    return error


def names_class(arguments: Sequence[str], key: str) -> bool:
    """Whether a config file among the arguments, or one of the arguments, names a class for `key`.

    Files that cannot be read count as without: the parser says what is wrong with them.
    """
    flags = [argument.partition("=") for argument in arguments]
    following = [*arguments[1:], ""]
    given = [
        (flag, value if separator else after)
        for (flag, separator, value), after in zip(flags, following, strict=True)
    ]
    return any(
        flag == f"--{key}.class_path"
        or (flag == f"--{key}" and _is_class_name(value))
        or (flag in ("--config", "-c") and _has_class_path(Path(value), key))
        for flag, value in given
    )


def _is_class_name(value: str) -> bool:
    """`package.Class`, not a file of settings or settings in braces."""
    return not Path(value).is_file() and all(part.isidentifier() for part in value.split("."))


def _has_class_path(path: Path, key: str) -> bool:
    try:
        config = yaml.safe_load(path.read_text()) if path.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    section = config.get(key) if isinstance(config, dict) else None
    return isinstance(section, dict) and "class_path" in section
