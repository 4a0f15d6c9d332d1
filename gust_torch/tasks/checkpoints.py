"""Checkpoints of a training: written whole or not at all, at whole steps, `best.ckpt` always the best."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import torch
from fsspec.utils import get_protocol
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gust_torch.checkpoint import read_checkpoint
from solvers.common.files import path_aside, written_aside
from solvers.common.urls import redact

LOCAL = ("file", "local")
UNSAFE = ("http", "https", "ftp")
BEST = "best"


class FileCheckpointIO(TorchCheckpointIO):
    """Writes a local checkpoint beside its target, syncs and renames it; loads weights only, never code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; an error names its path and leaves the one before."""
        if get_protocol(str(path)) not in LOCAL:
            super().save_checkpoint(checkpoint, str(path), storage_options)
            return
        target = Path(str(path).removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch's writer hides the system's error when a disk is full
        torch.save(checkpoint, buffer)
        with written_aside(target) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint without running code of it.

        Raises:
            ValueError: It is missing, damaged, or comes from a place that cannot be trusted.
        """
        if get_protocol(str(path)) in LOCAL:
            return read_checkpoint(str(path).removeprefix("file://"))
        check_place(str(path))
        with fsspec.open(str(path), "rb") as file:
            return dict(torch.load(file, map_location="cpu", weights_only=True))


def check_place(path: str) -> None:
    """Refuse, by a ValueError, a checkpoint that is neither a file nor in a store that fsspec knows."""
    protocol = get_protocol(path)
    if protocol in UNSAFE or protocol not in fsspec.available_protocols():
        raise ValueError(
            f"--ckpt_path {redact(path)}: checkpoints come from files and stores (s3://, gs://, ...), not "
            f"from {protocol}://; download it first"
        )


class TrainingCheckpoint(ModelCheckpoint):
    """`ModelCheckpoint` that saves at whole steps, and puts logs on the disk with each checkpoint.

    Where more than one best is kept, they are named by epoch, step and value, and `best.ckpt` is the best.
    """

    @property
    def state_key(self) -> str:
        """The parent's, so that checkpoints of its own continue."""
        return super().state_key.replace(type(self).__name__, ModelCheckpoint.__name__)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose names that differ where several files are kept."""
        super().setup(trainer, pl_module, stage)
        self._keeps_best = bool(self.monitor) and self.filename == BEST and self.save_top_k not in (0, 1)
        if self._keeps_best:
            metric = str(self.monitor).rpartition("/")[2]
            self.filename = f"{BEST}-epoch{{epoch:04d}}-step{{step:07d}}-{metric}{{{self.monitor}:.6g}}"
            self.auto_insert_metric_name = False

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Save where it is due, but not within the batches of one optimizer step."""
        if not trainer.fit_loop._should_accumulate():
            super().on_train_batch_end(trainer, *arguments)

    def save_now(self, trainer: Trainer) -> Path:
        """Save wherever the training stands; on all processes. Returns the file."""
        path = self.format_checkpoint_name(self._monitor_candidates(trainer))
        self._save_checkpoint(trainer, path)
        return Path(path)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        if self._keeps_best and filepath == self.best_model_path:
            with path_aside(Path(filepath).with_name(f"{BEST}{self.FILE_EXTENSION}")) as partial:
                with suppress(OSError):  # no links on this file system
                    os.link(filepath, partial)
                    return
                partial.write_bytes(Path(filepath).read_bytes())
