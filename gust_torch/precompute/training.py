"""Training of a task's autoencoder before its caches: begun, continued after a kill, or found finished."""

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gust_torch.latents.key import DataIdentity
from gust_torch.latents.writer import LOCK_SECONDS
from gust_torch.precompute.command import Request
from gust_torch.precompute.task_data import TaskData
from gust_torch.stages import training_falls_short, wanted_end
from gust_torch.tasks.cli import main as train
from solvers.common.stage import Stage, read_record

logger = logging.getLogger(__name__)

BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"


@dataclass(frozen=True)
class Training:
    """A training of an autoencoder.

    Attributes:
        folder: `<cache-dir>/<task>_autoencoder`.
        options: Flags of `scripts/train.py` that change the configuration, and their values.
        places: Its other flags: which files, where to compute. A training may be continued with others.
        config: sha256 of the configuration's text.
        data: Split -> identity of the data.
        end: Where it ends, see `gust_torch.stages.wanted_end`.
    """

    folder: Path
    options: Mapping[str, object]
    places: Mapping[str, object]
    config: str
    data: Mapping[str, DataIdentity]
    end: Mapping[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The best weights."""
        return self.folder / BEST

    def stage(self) -> Stage:
        """Return the folder with all that decides the result."""
        data = {split: identity.sha256 for split, identity in self.data.items()}
        request = {"configuration": self.config, "options": self.options, "data": data}
        return Stage(self.folder, request)

    def is_finished(self, *, overwrite: bool) -> bool:
        """Whether this training was done already.

        Raises:
            ValueError: Without `overwrite`, another one was done or begun in the folder.
        """
        stage = self.stage()
        try:
            changes = stage.changes()
        except ValueError:  # a damaged record
            if not overwrite:
                raise
            return False
        if changes and not overwrite:
            raise ValueError(
                f"{self.folder} holds a training of another request: {'; '.join(changes)}; give --overwrite "
                "to train again, or another --cache-dir"
            )
        return stage.is_done and self.checkpoint.is_file()

    def begin(self, *, overwrite: bool) -> Stage:
        """Prepare the folder, which the stage holds until it is closed; process 0 only.

        Raises:
            ValueError: Without `overwrite`, another training was done or begun in the folder.
            BlockingIOError: Another process trains in it.
        """
        stage = self.stage()
        stage.begin(overwrite=overwrite, timeout=LOCK_SECONDS)
        stage.record(data={split: asdict(identity) for split, identity in self.data.items()})
        return stage

    def run(self) -> None:
        """Train, or go on where a killed run stopped; every process.

        Raises:
            ValueError: The training left no best checkpoint, or ended before its end.
            SystemExit: The training failed or was stopped, and has said so.
        """
        last = self.folder / LAST
        resume = ("--ckpt_path", str(last)) if last.is_file() else ()
        logger.info("%s the autoencoder in %s", "continuing" if resume else "training", self.folder)
        flags = {**self.places, **self.options, "--trainer.default_root_dir": self.folder}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            train(["fit", *(f"{flag}={value}" for flag, value in flags.items()), *resume])
        if last.is_file() and (short := training_falls_short(last, self.end)):
            raise ValueError(f"{last} {short}; the same command continues")
        if not self.checkpoint.is_file():
            raise ValueError(
                f"the training left no {self.checkpoint}; let best.monitor of the configuration name a "
                "metric that is logged, such as val/loss, and validate at least once"
            )


def training_folder(request: Request, task: str) -> Path:
    """Where the autoencoder of a task is trained."""
    return request.cache_dir / f"{task}_autoencoder"


def known_identity(folder: Path, split: str) -> DataIdentity | None:
    """Return what an earlier call noted of the data in the folder of a training, if any."""
    try:
        record = read_record(folder)
        return None if record is None else DataIdentity(**record["progress"]["data"][split])
    except (ValueError, KeyError, TypeError):
        return None


def plan_training(data: TaskData, request: Request, identities: Mapping[str, DataIdentity]) -> Training:
    """Return the training of a task's autoencoder.

    Args:
        data: Of the task.
        request: Asks for latent sizes, a seed, devices and loading processes.
        identities: Split -> identity, of the files that are trained on.
    """
    flag = data.config.data_flag
    paths: dict[str, object] = {flag("data_path"): data.paths["train"]}
    if data.config.is_graph:
        paths = {flag(f"{split}_path"): data.paths[split] for split in ("train", "val")}
        paths[flag("test_path")] = "null"
    options: dict[str, object] = {
        f"--model.init_args.{name}": size for name, size in data.latent_sizes(request).items()
    }
    if request.seed is not None:
        options["--seed_everything"] = request.seed
    where = {
        flag("num_workers"): request.num_workers,
        "--trainer.devices": request.devices,
        "--trainer.accelerator": request.accelerator,
        "--trainer.strategy": request.strategy,
        "--trainer.num_nodes": request.num_nodes,
        "--trainer.enable_model_summary": "false",  # it goes to stdout
    }
    return Training(
        folder=training_folder(request, data.task),
        options=options,
        places={"--config": data.config.path, **paths, **where},
        config=hashlib.sha256(data.config.text.encode()).hexdigest(),
        data=identities,
        end=wanted_end({"trainer": data.config.trainer}),
    )
