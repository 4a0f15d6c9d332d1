"""LightningCLI with this package's defaults: how a training is begun, continued, finished or refused."""

import inspect
import logging
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from fsspec.utils import get_protocol
from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

from gust_torch.data.datamodule import FieldDataModule
from gust_torch.tasks.callbacks import Interruption, TrainingProgress, ValidationFigures
from gust_torch.tasks.checkpoints import LOCAL, FileCheckpointIO, TrainingCheckpoint, check_place
from gust_torch.tasks.cli import SUBCOMMANDS, USAGE_ERROR, fail, names_class
from gust_torch.tasks.model_task import ModelTask
from gust_torch.tasks.resume import ExactFitLoop, StoppedBySignal
from gust_torch.tasks.signals import Signals
from gust_torch.tasks.vqvae import VQVAETask
from gust_torch.terminal import silence_lightning
from gust_torch.trust import restrict_imports, untrusted
from solvers.common.cli import one_line
from solvers.common.files import WriterLock
from solvers.common.urls import redact

logger = logging.getLogger(__name__)

GRADIENT_CLIP = 0.5
DEFAULT_ROOT = "runs"
CHECKPOINTS = ("best", "last", "recent")
# torch 2.13 renamed the argument.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers"
)

MISTAKES = (ValueError, OSError, MisconfigurationException, ArgumentError, RuntimeError)
_NO_SUBTYPE = "Does not validate against any of the Union subtypes"
_OTHER_WEIGHTS = "Error(s) in loading state_dict"
_UNTRUSTED = re.compile(r"Importing '([\w.]+)' is not allowed")
_BAD_CLASS = re.compile(r"Problem with given class_path '([\w.]+)':\s*(.+)", re.DOTALL)
_MISSING = re.compile(r"(?:arguments are required: |Key \")(?:fit|validate)\.([\w.]+)")
_WRONG_FLAG = re.compile(
    r"[Uu]nrecognized arguments|is not accepted|Key '[\w.]+' is not expected|is required"
)


class TrainCLI(LightningCLI):
    """Checkpoints (the best by val/vrmse, and the last), CSV logs, figures and DDP settings by default."""

    def __init__(self, *arguments: Any, signals: Signals | None = None, **options: Any) -> None:
        self.signals = Signals() if signals is None else signals
        self.interruption: Interruption | None = None
        options.setdefault("save_config_callback", RedactedConfig)
        super().__init__(*arguments, **options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands that the tasks support."""
        return {name: LightningCLI.subcommands()[name] for name in SUBCOMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint's flags and set this package's defaults."""
        for name in CHECKPOINTS:
            parser.add_lightning_class_args(TrainingCheckpoint, name)
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
        _check_checkpoint(config, str(self.subcommand))
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
        """Put checkpoints and logs below `trainer.default_root_dir`, and leave out what is switched off.

        Here and not in the configuration, which is saved: run again, it may name another folder.
        """
        made = self.config_init[self.subcommand]
        for name in CHECKPOINTS:
            made[name].dirpath = _checkpoint_folder(made[name].dirpath, made.trainer)
        if made.ckpt_path in ("last", "best"):
            made.ckpt_path = str(_named_checkpoint(made, made.ckpt_path))
        if made.trainer.logger in (None, True):
            kwargs["logger"] = CSVLogger(save_dir=made.trainer.default_root_dir, name="logs")
        left_out = {"lr_monitor"} if made.trainer.logger is False else set()
        if made.trainer.enable_checkpointing is False:
            left_out |= set(CHECKPOINTS)
        names = [name for name in self._parser(self.subcommand).callback_keys if name not in left_out]
        self.interruption = Interruption(self.signals, None if "last" in left_out else made.last)
        callbacks = [made[name] for name in names] + [self.interruption]
        trainer = self._instantiate_trainer({**made.trainer, **kwargs}, callbacks)
        self.signals.children = lambda: getattr(trainer.strategy.launcher, "procs", ())
        ExactFitLoop.install(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = FileCheckpointIO()
        return trainer

    def fit(self, model: LightningModule, **options: Any) -> None:
        """Train, alone in the folder; say what came out and what to do with it.

        Raises:
            SystemExit: A signal stopped it.
        """
        made = self.config_init[self.subcommand]
        with self._alone():
            try:
                self.trainer.fit(model, **options)
            except StoppedBySignal:
                self._end_by_signal()
        if self.trainer.is_global_zero and not made.trainer.fast_dev_run:
            self._report()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep another training out of the folder; the first process holds the lock for all."""
        made = self.config_init[self.subcommand]
        folder = made.last.dirpath
        is_off = made.trainer.fast_dev_run or not self.trainer.checkpoint_callbacks
        if is_off or not _is_first() or get_protocol(str(folder)) not in LOCAL:
            yield
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock = WriterLock(Path(folder) / "last.ckpt")
        try:
            _refuse_earlier_training(self.config[self.subcommand])  # one may have ended in between
            yield
        finally:
            lock.release()

    def _end_by_signal(self) -> None:
        """Say how to continue, and exit."""
        assert self.interruption is not None
        environment = self.trainer._accelerator_connector.cluster_environment
        if not self.trainer.is_global_zero and isinstance(environment, LightningEnvironment):
            sys.exit(0)  # a code would make the first process kill itself, see `_ChildProcessObserver`
        if self.trainer.is_global_zero:
            saved = self.interruption.saved
            words = f"{saved} holds it, --ckpt_path last continues" if saved else "nothing new was saved"
            print(
                f"stopped by {self.signals.name} at step {self.trainer.global_step}; {words}", file=sys.stderr
            )
        sys.exit(self.signals.exit_code)

    def _report(self) -> None:
        """Log the end of a training: the best value, the paths, the next command."""
        made = self.config_init[self.subcommand]
        trainer = self.trainer
        words = [f"trained {trainer.global_step:,} steps in {trainer.current_epoch:,} epochs"]
        path = ""
        if trainer.checkpoint_callbacks:
            if made.best.best_model_score is not None:
                path = str(Path(made.best.dirpath) / "best.ckpt")
                words.append(f"best {made.best.monitor} {float(made.best.best_model_score):.4g} in {path}")
            last = Path(made.last.dirpath) / "last.ckpt"
            words.append(f"last in {last}")
            path = path or str(last)
        logger.info("%s", "; ".join(words))
        if path and isinstance(self.model, ModelTask):
            logger.info("next: %s", self.model.next_command(path))


class RedactedConfig(SaveConfigCallback):
    """Saves the configuration without the logins and signatures of its URLs."""

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, *arguments: Any, **options: Any
    ) -> None:
        super().__init__(parser, _redacted(config.clone()), *arguments, **options)


def _redacted(value: Any) -> Any:
    """Take logins and signatures out of all texts."""
    if isinstance(value, str):
        return redact(value) if "://" in value else value
    if isinstance(value, Namespace):
        for key, item in vars(value).items():
            setattr(value, key, _redacted(item))
    elif isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        return type(value)(_redacted(item) for item in value)
    return value


def _is_first() -> bool:
    """Whether this is the first process of a training."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _checkpoint_folder(given: str | None, trainer: Namespace) -> str:
    """Return the given one, else a folder below `trainer.default_root_dir`."""
    return str(Path(trainer.default_root_dir) / "checkpoints") if given is None else given


def _named_checkpoint(config: Namespace, name: str) -> Path:
    """Return the file that `--ckpt_path last` or `best` means."""
    folder = Path(_checkpoint_folder(config.last.dirpath, config.trainer))
    if name == "best":
        return folder / "best.ckpt"
    names = (f"{config.last.filename}.ckpt", "last.ckpt")
    found = [folder / one for one in names if (folder / one).exists()] or list(folder.glob("last-*.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime, default=folder / names[0])


def _check_checkpoint(config: Namespace, subcommand: str) -> None:
    """Refuse a checkpoint that is not there or cannot be trusted, and a validation without one.

    Raises:
        ValueError: As said.
    """
    if config.ckpt_path is None:
        if subcommand == "validate":
            raise ValueError(
                "validate needs --ckpt_path FILE, best or last: random weights are not worth scoring"
            )
        return
    if config.ckpt_path in ("last", "best"):
        path = _named_checkpoint(config, config.ckpt_path)
        if not path.exists():
            raise ValueError(
                f"--ckpt_path {config.ckpt_path}: no {path}; leave --ckpt_path out to begin a training, "
                "or name its folder with --trainer.default_root_dir"
            )
    elif get_protocol(str(config.ckpt_path)) not in LOCAL:
        check_place(str(config.ckpt_path))


def _refuse_earlier_training(config: Namespace) -> None:
    """Keep a new training from replacing an older one.

    Raises:
        ValueError: The folder holds checkpoints, and neither their continuation nor their end was asked for.
    """
    newest = Path(_checkpoint_folder(config.last.dirpath, config.trainer), f"{config.last.filename}.ckpt")
    # The others start while the first writes.
    if _is_first() and newest.exists() and config.ckpt_path is None and not config.overwrite:
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


def run(arguments: Sequence[str], signals: Signals, *, is_whole_command: bool) -> None:
    """Run a command line.

    Args:
        arguments: Without the program's name.
        signals: Notes SIGTERM and SIGINT.
        is_whole_command: Whether the arguments are those of the process.

    Raises:
        SystemExit: The command failed, or a signal stopped it.
    """
    silence_lightning()
    restrict_imports()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    if _is_first():
        logging.getLogger("gust_torch").setLevel(logging.INFO)
    # Without this the parser prints a hundred lines of usage in front of the one that says what is wrong.
    one_line_errors = {"exit_on_error": False, "allow_abbrev": False}
    names_model, names_data = (names_class(arguments, key) for key in ("model", "data"))
    try:
        TrainCLI(
            LightningModule if names_model else VQVAETask,
            LightningDataModule if names_data else FieldDataModule,
            subclass_mode_model=names_model,
            subclass_mode_data=names_data,
            parser_kwargs={**one_line_errors, **dict.fromkeys(SUBCOMMANDS, one_line_errors)},
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            args=None if is_whole_command else list(arguments),
            signals=signals,
        )
    except Exception as error:
        if not isinstance(error, MISTAKES) and type(error).__module__.partition(".")[0] != "wandb":
            raise
        if isinstance(error, RuntimeError) and _OTHER_WEIGHTS not in str(error):
            raise  # no mistake of the user
        line = one_line(_reason(error))
        is_usage = isinstance(error, ArgumentError) and _WRONG_FLAG.search(line) is not None
        fail(line, USAGE_ERROR if is_usage else 1)


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
    if type(error).__module__.partition(".")[0] == "wandb":
        return ValueError(f"W&B: {error}; run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline")
    if found := _MISSING.search(str(error)):
        return ValueError(f"--{found[1]} is required; `fit --help` lists what there is")
    if found := _UNTRUSTED.search(str(error)):
        return ValueError(untrusted(found[1], source="the settings"))
    if found := _BAD_CLASS.search(str(error)):
        return ValueError(f"{found[1].rpartition('.')[2]}: {found[2]}; `fit --help` lists what there is")
    return error
