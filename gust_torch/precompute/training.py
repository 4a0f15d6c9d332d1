"""Training of a task's autoencoder before its caches: begun, continued after a kill, or found finished."""

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gust_torch.latents.key import DataIdentity
from gust_torch.precompute.encoder import latent_sizes
from gust_torch.precompute.options import Compute, Request
from gust_torch.precompute.ranks import PlainSigterm
from gust_torch.precompute.sources import TaskData
from gust_torch.tasks.cli import main as train
from solvers.common.files import written_aside
from solvers.common.provenance import provenance

logger = logging.getLogger(__name__)

RECORD = "training.json"
BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
VERSION = 1


@dataclass(frozen=True)
class Training:
    """A training of an autoencoder.

    Attributes:
        folder: `<cache-dir>/<task>_autoencoder`.
        options: Flags of `scripts/train.py` that change the configuration.
        places: Its other flags: which files, where to compute. A training may be continued with others.
        config: sha256 of the configuration's text.
        data: Split -> identity of the data.
    """

    folder: Path
    options: tuple[str, ...]
    places: tuple[str, ...]
    config: str
    data: Mapping[str, DataIdentity]

    @property
    def checkpoint(self) -> Path:
        """The best weights."""
        return self.folder / BEST

    @property
    def parts(self) -> dict[str, object]:
        """What decides the result, by what a user calls it."""
        return {
            "configuration": self.config,
            "options": list(self.options),
            "data": {split: identity.sha256 for split, identity in self.data.items()},
        }

    @property
    def is_finished(self) -> bool:
        """Whether this training was done already.

        Raises:
            ValueError: Another one was done or begun in the folder.
        """
        record = read_record(self.folder)
        if record is None:
            return False
        if changes := self._changes(record["parts"]):
            raise ValueError(
                f"{self.folder} holds {'a finished' if record['finished'] else 'an unfinished'} training of "
                f"another request: {', '.join(changes)}; give --overwrite to train again, or another "
                "--cache-dir"
            )
        return bool(record["finished"]) and self.checkpoint.is_file()

    def begin(self, *, overwrite: bool) -> None:
        """Prepare the folder; process 0 only.

        Raises:
            ValueError: See `is_finished`; with `overwrite` the other training is removed instead.
        """
        try:
            _ = self.is_finished
        except ValueError:
            if not overwrite:
                raise
            shutil.rmtree(self.folder)
        if read_record(self.folder) is None and self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder} is in the way and has no {RECORD}; move it away")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record(finished=False)

    def run(self) -> None:
        """Train, or go on where a killed run stopped; every process.

        Raises:
            ValueError: The training left no best checkpoint.
            SystemExit: The training failed, and has said why.
        """
        last = self.folder / LAST
        resume = ("--ckpt_path", str(last)) if last.is_file() else ()
        logger.info("%s the autoencoder in %s", "continuing" if resume else "training", self.folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            train(
                ["fit", *self.places, *self.options, "--trainer.default_root_dir", str(self.folder), *resume]
            )
        if not self.checkpoint.is_file():
            raise ValueError(
                f"the training left no {self.checkpoint}; let best.monitor of the configuration name a "
                "metric that is logged, such as val/loss, and validate at least once"
            )

    def finish(self) -> None:
        """Note that the training is done; process 0 only."""
        self._record(finished=True)

    def _changes(self, then: Mapping[str, Any]) -> list[str]:
        """Return what this training has other than `parts` of an earlier one, in words."""
        changes = []
        if then.get("configuration") != self.parts["configuration"]:
            changes.append("the configuration differs")
        if (options := then.get("options")) != self.parts["options"]:
            now, before = (" ".join(given or ()) or "none" for given in (self.options, options))
            changes.append(f"the options differ (now {now}, then {before})")
        if then.get("data") != self.parts["data"]:
            changes.append("the data differ")
        return changes

    def _record(self, *, finished: bool) -> None:
        data = {split: asdict(identity) for split, identity in self.data.items()}
        values = {"version": VERSION, "finished": finished, "parts": self.parts, "data": data, **provenance()}
        with written_aside(self.folder / RECORD) as file:
            file.write(json.dumps(values, indent=1).encode())


def training_folder(request: Request, task: str) -> Path:
    """Where the autoencoder of a task is trained."""
    return request.cache_dir / f"{task}_autoencoder"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a training left in its folder; None where there is nothing.

    Raises:
        ValueError: It cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] == VERSION and {"finished", "parts", "data"} <= record.keys():
            return dict(record)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path} is damaged or of another version; remove {folder} to train again")


def plan_training(
    data: TaskData, request: Request, compute: Compute, identities: Mapping[str, DataIdentity]
) -> Training:
    """Return the training of a task's autoencoder.

    Args:
        data: Of the task.
        request: Asks for latent sizes and a seed.
        compute: Devices and loading processes.
        identities: Split -> identity, of the files that are trained on.
    """
    if data.config.is_graph:
        paths = {data.config.data_flag(f"{split}_path"): data.paths[split] for split in ("train", "val")}
        paths[data.config.data_flag("test_path")] = Path("null")
    else:
        paths = {data.config.data_flag("data_path"): data.paths["train"]}
    options = {f"--model.init_args.{name}": size for name, size in latent_sizes(request).items()}
    if request.seed is not None:
        options["--seed_everything"] = request.seed
    where: dict[str, object] = {
        data.config.data_flag("num_workers"): compute.num_workers,
        "--trainer.devices": compute.devices,
        "--trainer.accelerator": compute.accelerator,
        "--trainer.strategy": compute.strategy,
        "--trainer.num_nodes": compute.num_nodes,
        "--trainer.enable_model_summary": "false",  # it goes to stdout
        "--trainer.callbacks+": f"{PlainSigterm.__module__}.{PlainSigterm.__name__}",
    }
    return Training(
        folder=training_folder(request, data.task),
        options=_flags(options),
        places=("--config", str(data.config.path), *_flags(paths), *_flags(where)),
        config=hashlib.sha256(data.config.text.encode()).hexdigest(),
        data=identities,
    )


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"{flag}={value}" for flag, value in values.items())
