"""LightningCLI with this package's defaults: how a training is begun, continued, finished or refused."""

import inspect
import logging
import re
import signal
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import ExitStack
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

CHECKPOINTS = ("best", "last", "recent")
DEFAULTS = {
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
    "trainer.default_root_dir": "runs",
    "trainer.enable_model_summary": False,  # the tasks say how large their models are
    "trainer.gradient_clip_val": 0.5,
}
# torch 2.13 renamed the argument.
_DDP_ARGUMENTS = inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_ARGUMENTS else "broadcast_buffers"

MISTAKES = (ValueError, OSError, MisconfigurationException, ArgumentError)
_NO_SUBTYPE = "Does not validate against any of the Union subtypes"
_OTHER_WEIGHTS = "Error(s) in loading state_dict"
_WRONG_FLAG = re.compile(
    r"[Uu]nrecognized arguments|is not accepted|Key '[\w.]+' is not expected|is required"
)
_HELP = "`fit --help` lists what there is"
_WORDS = (  # what jsonargparse and torch say in many lines, and what we say instead
    (
        re.escape(_OTHER_WEIGHTS),
        "the checkpoint to continue from is of another architecture; give the settings of its training, or "
        "train anew without --ckpt_path",
    ),
    (r"(?:arguments are required: |Key \")(?:fit|validate)\.([\w.]+)", rf"--\1 is required; {_HELP}"),
    (r"Importing '([\w.]+)' is not allowed", untrusted(r"\1", source="the settings")),
    (r"(?s)Problem with given class_path '(?:\w+\.)*(\w+)':\s*(.+)", rf"\1: \2; {_HELP}"),
)


class TrainCLI(LightningCLI):
    """Checkpoints (the best by val/vrmse, and the last), CSV logs, figures and DDP settings by default."""

    def __init__(self, *arguments: Any, signals: Signals | None = None, **options: Any) -> None:
        self.signals = signals or Signals()
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
        parser.set_defaults(DEFAULTS)

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
                dict_kwargs={_SYNC: False, "find_unused_parameters": False},
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Put checkpoints and logs below `trainer.default_root_dir`, and leave out what is switched off.

        Here and not in the configuration, which is saved: run again, it may name another folder.
        """
        made = self.config_init[self.subcommand]
        for name in CHECKPOINTS:
            made[name].dirpath = str(_folder(made, name))
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
        with ExitStack() as stack:
            saves = self.trainer.checkpoint_callbacks and not made.trainer.fast_dev_run
            if saves and _is_first() and get_protocol(made.last.dirpath) in LOCAL:
                folder = Path(made.last.dirpath)
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(WriterLock(folder / "last.ckpt"))  # of the first process, for all
                _refuse_earlier_training(self.config[self.subcommand])  # one may have ended in between
            try:
                self.trainer.fit(model, **options)
            except StoppedBySignal:
                self._end_by_signal()
        if self.trainer.is_global_zero and not made.trainer.fast_dev_run:
            self._report()

    def _end_by_signal(self) -> None:
        """Say how to continue, and exit."""
        environment = self.trainer._accelerator_connector.cluster_environment
        if not self.trainer.is_global_zero and isinstance(environment, LightningEnvironment):
            sys.exit(0)  # a code would make the first process kill itself, see `_ChildProcessObserver`
        number = signal.Signals(self.signals.number or signal.SIGTERM)  # another process may have got it
        if self.trainer.is_global_zero:
            saved = self.interruption.saved
            words = f"{saved} holds it, --ckpt_path last continues" if saved else "nothing new was saved"
            print(f"stopped by {number.name} at step {self.trainer.global_step}; {words}", file=sys.stderr)
        sys.exit(128 + number)

    def _report(self) -> None:
        """Log the end of a training: the best value, the paths, the next command."""
        made, trainer = self.config_init[self.subcommand], self.trainer
        words = [f"trained {trainer.global_step:,} steps in {trainer.current_epoch:,} epochs"]
        paths = []
        if trainer.checkpoint_callbacks:
            if made.best.best_model_score is not None:
                paths.append(Path(made.best.dirpath) / "best.ckpt")
                score = float(made.best.best_model_score)
                words.append(f"best {made.best.monitor} {score:.4g} in {paths[0]}")
            paths.append(Path(made.last.dirpath) / "last.ckpt")
            words.append(f"last in {paths[-1]}")
        logger.info("%s", "; ".join(words))
        if paths and isinstance(self.model, ModelTask):
            logger.info("next: %s", self.model.next_command(str(paths[0])))


class RedactedConfig(SaveConfigCallback):
    """Saves the configuration without the logins and signatures of its URLs."""

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, *arguments: Any, **options: Any
    ) -> None:
        super().__init__(parser, _redacted(config), *arguments, **options)


def _redacted(value: Any) -> Any:
    """Copy settings without logins and signatures."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Namespace):
        return Namespace(**_redacted(vars(value)))
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_redacted(item) for item in value)
    return value


def _is_first() -> bool:
    """Whether this is the first process of a training."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _folder(config: Namespace, name: str) -> Path:
    """Where a checkpoint callback saves: where it is told, else below `trainer.default_root_dir`."""
    return Path(config[name].dirpath or Path(config.trainer.default_root_dir, "checkpoints"))


def _named_checkpoint(config: Namespace, name: str) -> Path:
    """Return the file that `--ckpt_path last` or `best` means."""
    folder = _folder(config, "last")
    if name == "best":
        return folder / "best.ckpt"
    names = (f"{config.last.filename}.ckpt", "last.ckpt")
    found = [folder / one for one in names if (folder / one).exists()] or list(folder.glob("last-*.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime, default=folder / names[0])


def _check_checkpoint(config: Namespace, subcommand: str) -> None:
    """Refuse a checkpoint that is not there or cannot be trusted, and a validation without one."""
    path = config.ckpt_path
    if path is None and subcommand == "validate":
        raise ValueError(
            "validate needs --ckpt_path FILE, best or last: random weights are not worth scoring"
        )
    if path in ("last", "best"):
        file = _named_checkpoint(config, path)
        if not file.exists():
            raise ValueError(
                f"--ckpt_path {path}: no {file}; leave --ckpt_path out to begin a training, or name its "
                "folder with --trainer.default_root_dir"
            )
    elif path is not None and get_protocol(str(path)) not in LOCAL:
        check_place(str(path))


def _refuse_earlier_training(config: Namespace) -> None:
    """Keep a new training from replacing the checkpoints of an older one that it does not continue."""
    newest = _folder(config, "last") / f"{config.last.filename}.ckpt"
    # The others start while the first writes.
    if _is_first() and newest.exists() and config.ckpt_path is None and not config.overwrite:
        raise ValueError(
            f"{newest} is of an earlier training; continue it with --ckpt_path last, choose another folder "
            "with --trainer.default_root_dir, or replace it with --overwrite true"
        )


def _hand_over_cache_dir(config: Namespace) -> None:
    """Give `training.latent_cache_dir`, where set, to the data module, which has to know it."""
    folder = config.training.latent_cache_dir
    if folder is None:
        return
    options = config.data.get("init_args", config.data)
    name = config.data.get("class_path", FieldDataModule.__name__).rpartition(".")[-1]
    if "latent_cache_dir" not in options:
        problem = f"{name} reads no latent cache; leave it out, or choose gust_torch.LatentDataModule"
        raise ValueError(f"training.latent_cache_dir={folder} is set, but {problem}")
    if options.latent_cache_dir not in (None, folder):
        other = f"data.init_args.latent_cache_dir={options.latent_cache_dir}"
        raise ValueError(f"training.latent_cache_dir={folder} and {other} differ; give the first alone")
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
        is_wandb = type(error).__module__.partition(".")[0] == "wandb"
        if not (isinstance(error, MISTAKES) or is_wandb or _OTHER_WEIGHTS in str(error)):
            raise  # no mistake of the user
        line = _reason(error)
        if is_wandb:
            line = f"W&B: {line}; run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"
        is_usage = isinstance(error, ArgumentError) and _WRONG_FLAG.search(line) is not None
        fail(line, USAGE_ERROR if is_usage else 1)


def _reason(error: Exception) -> str:
    """Say in a line what is wrong, without what jsonargparse writes around it in subclass mode."""
    while str(error).startswith(_NO_SUBTYPE) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    for pattern, words in _WORDS:
        if found := re.search(pattern, str(error)):
            return one_line(ValueError(found.expand(words)))
    return one_line(error)
