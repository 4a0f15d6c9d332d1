"""Training of a task's autoencoder before its caches: begun, continued after a kill, or found finished."""

import hashlib
import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from gust_torch.latents.key import DataIdentity
from gust_torch.latents.writer import LOCK_SECONDS
from gust_torch.precompute.command import Request
from gust_torch.precompute.task_data import TaskData, latent_sizes
from gust_torch.predict import Ranks
from gust_torch.stages import training_falls_short, wanted_end
from gust_torch.tasks.cli import main as train
from solvers.common.stage import Stage, read_record

logger = logging.getLogger(__name__)

SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Training:
    """A training of an autoencoder in `<cache-dir>/<task>_autoencoder`, which may be continued elsewhere.

    Attributes:
        checkpoint: The best weights.
    """

    def __init__(self, data: TaskData, request: Request, identities: Mapping[str, DataIdentity]) -> None:
        """Look at nothing yet.

        Args:
            data: Of the task.
            request: Asks for latent sizes, a seed, devices and loading processes.
            identities: Split -> identity, of the files that are trained on.
        """
        config, flag = data.config, data.config.data_flag
        self.folder = request.cache_dir / f"{data.task}_autoencoder"
        self.checkpoint = self.folder / "checkpoints" / "best.ckpt"
        self._overwrite, self._identities = request.overwrite, identities
        options: dict[str, object] = {
            f"--model.init_args.{name}": size for name, size in latent_sizes(request).items()
        }
        if request.seed is not None:
            options["--seed_everything"] = request.seed
        if config.is_graph:
            paths: dict[str, object] = {f"{flag}.{split}_path": data.paths[split] for split in identities}
            paths[f"{flag}.test_path"] = "null"
        else:
            paths = {f"{flag}.data_path": data.paths["train"]}
        self._flags = {
            "--config": config.path,
            **paths,
            f"{flag}.num_workers": request.num_workers,
            "--trainer.devices": request.devices,
            "--trainer.accelerator": request.accelerator,
            "--trainer.strategy": request.strategy,
            "--trainer.num_nodes": request.num_nodes,
            "--trainer.enable_model_summary": "false",  # it goes to stdout
            **options,
            "--trainer.default_root_dir": self.folder,
        }
        self._end = wanted_end({"trainer": config.trainer})
        decisive = {
            "configuration": hashlib.sha256(config.text.encode()).hexdigest(),
            "options": options,
            "data": {split: identity.sha256 for split, identity in identities.items()},
        }
        self._stage = Stage(self.folder, decisive)

    def is_finished(self) -> bool:
        """Whether this training was done already.

        Raises:
            ValueError: Without `overwrite`, another one was done or begun in the folder.
        """
        if not self._overwrite and (changes := self._stage.changes()):
            text = f"{self.folder} holds a training of another request: {'; '.join(changes)}"
            raise ValueError(f"{text}; give --overwrite to train again, or another --cache-dir")
        with suppress(ValueError):  # a damaged record, which may be overwritten
            return self._stage.is_done and self.checkpoint.is_file()
        return False

    def run(self, ranks: Ranks) -> None:
        """Train, or go on where a killed run stopped; every process.

        Raises:
            ValueError: The training left no best checkpoint, or ended before its end.
            BlockingIOError: Another process trains in the folder.
            SystemExit: The training failed or was stopped, and has said so.
        """
        with self._stage:
            ranks.agree(self._begin)
            try:
                self._train()
            except SystemExit as end:
                if ranks.rank == 0 and end.code in SIGNALLED:
                    print("stopped; the same command continues", file=sys.stderr)
                raise
            if ranks.rank == 0:
                self._stage.finish()
        ranks.wait()

    def _begin(self) -> None:
        self._stage.begin(overwrite=self._overwrite, timeout=LOCK_SECONDS)
        self._stage.record(data={split: asdict(identity) for split, identity in self._identities.items()})

    def _train(self) -> None:
        last = self.checkpoint.with_name("last.ckpt")
        resume = ("--ckpt_path", str(last)) if last.is_file() else ()
        logger.info("%s the autoencoder in %s", "continuing" if resume else "training", self.folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            train(["fit", *(f"{flag}={value}" for flag, value in self._flags.items()), *resume])
        if last.is_file() and (short := training_falls_short(last, self._end)):
            raise ValueError(f"{last} {short}; the same command continues")
        if not self.checkpoint.is_file():
            remedy = "let best.monitor name a metric that is logged, such as val/loss, and validate once"
            raise ValueError(f"the training left no {self.checkpoint}; {remedy}")


def known_identity(request: Request, task: str, split: str) -> DataIdentity | None:
    """Return what an earlier call noted of the data in the folder of a training, if any."""
    with suppress(ValueError, LookupError, TypeError):
        record = read_record(request.cache_dir / f"{task}_autoencoder") or {}
        return DataIdentity(**record["progress"]["data"][split])
    return None
