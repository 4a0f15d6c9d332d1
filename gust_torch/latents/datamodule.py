"""Lightning data module over latent caches, or over raw frames for an encoder that works on the fly."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.data.loader import BlockDataModule, Collate, check_least
from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import content_digest, spec_identity
from gust_torch.latents.cache import COMMAND, REMEDY, LatentCache
from gust_torch.latents.dataset import (
    FrameWindowDataset,
    LatentBatch,
    LatentDataset,
    WindowDataset,
    collate_windows,
)
from gust_torch.latents.frames import open_grid
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.spec import FieldSpec
from solvers.common.splits import find_split, find_splits

logger = logging.getLogger(__name__)

SAME_DATA = "hold the same data, so that validation would say nothing; convert both again in one call"
MAKE_CACHES = f"make caches with {COMMAND} and set training.latent_cache_dir"
COPIED_SHARE = 0.5
"""Validation samples that are training samples too, above which a cache counts as a copy; trajectories that
start from one state share that."""


class LatentDataModule(BlockDataModule):
    """Batches (`LatentBatch`) of windows along the trajectories of `<task>_train` and `<task>_val`.

    With `latent_cache_dir` the states are cached latents, without it raw frames for the task to encode. The
    windows and their order are the same. Shuffling and resumption are those of `FieldDataModule`.
    """

    def __init__(
        self,
        task: str,
        root: str = "data/pdebench",
        latent_cache_dir: str | None = None,
        encoder: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        n_steps: int = 2,
        stride: int = 1,
        block_size: int = 1,
        seed: int = 0,
        allow_changed: bool = False,
    ) -> None:
        """Remember the settings; files are opened when first needed.

        Args:
            task: Such as "burgers1d".
            root: Folder of the converted data. A cache is compared with them where they are there.
            latent_cache_dir: Folder of the caches `<task>_train` and `<task>_val`, as
                scripts/precompute_latent_cache.py makes them.
            encoder: Checkpoint of the autoencoder: the one that encodes raw frames, or that the caches have
                to be made by. By default that of the caches.
            batch_size: Windows in a batch, on each device.
            num_workers: Processes that load ahead; 0 loads in the training process.
            n_steps: States in a window.
            stride: Frames from one of a window's states to the next.
            block_size: Neighboring windows that stay together when shuffling.
            seed: Of the shuffling.
            allow_changed: Continue a training on data that are not those of its checkpoint, and log what is
                different.

        Raises:
            ValueError: A number out of range, or neither caches nor an encoder are given.
        """
        super().__init__(batch_size, num_workers, block_size, seed, allow_changed)
        check_least(n_steps=(n_steps, 1), stride=(stride, 1))
        if latent_cache_dir is None and encoder is None:
            raise ValueError(f"neither caches nor an encoder are given; {MAKE_CACHES}, or set data.encoder")
        self.task, self.root = task, root
        self.latent_cache_dir, self.encoder = latent_cache_dir, encoder
        self.n_steps, self.stride = n_steps, stride
        self._datasets: dict[str, WindowDataset] = {}

    @property
    def encoded(self) -> bool:
        """Whether batches hold latents."""
        return self.latent_cache_dir is not None

    @cached_property
    def autoencoder(self) -> LatentAutoencoder:
        """The autoencoder on the CPU, frozen, in evaluation mode.

        Raises:
            ValueError: Its checkpoint is missing or damaged, or not that of the caches.
        """
        if self.encoder is not None:
            model = load_model(self.encoder, LatentAutoencoder)
        else:
            model = self._caches["train"].encoder()
        return model.requires_grad_(False).eval()

    @property
    def spec(self) -> FieldSpec | GraphSpec:
        """Of the data that the autoencoder takes."""
        return self._caches["train"].index.spec if self.encoded else self.autoencoder.spec

    def identity(self) -> dict[str, Any]:
        """Return what checkpoints hold of the data; see `gust_torch.identity`."""
        values = spec_identity(self.spec)
        values |= {
            "parameters": list(self.dataset("train").parameter_names),
            "n_steps": self.n_steps,
            "stride": self.stride,
        }
        for split in ("train", "val"):
            dataset = self.dataset(split)
            values[f"{split} windows"] = len(dataset)
            if dataset.parameter_names:
                mean, std = dataset.parameters.double().mean(0), dataset.parameters.double().std(0)
                values |= {f"{split} parameters": [*mean.tolist(), *std.nan_to_num().tolist()]}
            if self.encoded:
                values[f"{split} data"] = self._caches[split].key.data
            elif isinstance(dataset, FrameWindowDataset):
                values[f"{split} content"] = content_digest(dataset.dataset)
        return values

    def dataset(self, split: str) -> WindowDataset:
        """Windows of "train" or "val".

        Raises:
            ValueError: Data or caches are missing, damaged or stale, or do not fit the encoder.
        """
        if split not in self._datasets:
            if self.encoded:
                dataset: WindowDataset = LatentDataset(self._caches[split], self.n_steps, self.stride)
            else:
                dataset = self._raw(split)
            if split != "train":
                self._compare(self.dataset("train"), dataset)
            self._datasets[split] = dataset
        return self._datasets[split]

    def _compare(self, train: WindowDataset, val: WindowDataset) -> None:
        """Refuse a validation set that validates nothing, or has other parameters."""
        where = f"{self.task}_train and {self.task}_val"
        sources = [windows.dataset for windows in (train, val) if isinstance(windows, FrameWindowDataset)]
        if len(sources) > len({content_digest(source) for source in sources}):
            raise ValueError(f"{self.root}: {where} {SAME_DATA}")
        if train.parameter_names != val.parameter_names:
            names = f"{list(train.parameter_names)} and {list(val.parameter_names)}"
            raise ValueError(f"the parameters of {where} are {names}; convert both again in one call")

    @cached_property
    def _caches(self) -> dict[str, LatentCache]:
        """Both caches, checked against the data, the encoder and each other."""
        assert self.latent_cache_dir is not None
        digest = None if self.encoder is None else model_digest(self.autoencoder)
        paths = find_splits(self.root, self.task)
        caches = {}
        for split in ("train", "val"):
            name = f"{self.task}_{split}"
            cache = LatentCache(Path(self.latent_cache_dir) / name)
            if (found := f"{cache.index.task}_{cache.index.split}") != name:
                raise ValueError(f"{cache.folder} holds {found}; {REMEDY}")
            if split not in paths:
                logger.info("%s/%s is not there to compare its latent cache with", self.root, name)
            cache.check_fresh(data_path=paths.get(split), encoder_digest=digest)
            caches[split] = cache
        train, val = caches["train"], caches["val"]
        where = f"{train.folder} and {val.folder}"
        if train.key.encoder != val.key.encoder or train.key.config != val.key.config:
            what = "encoders" if train.key.encoder != val.key.encoder else "options of the data"
            raise ValueError(f"{where} were made with different {what}; {REMEDY}")
        share = float(np.isin(val.checksums, train.checksums).mean())
        if train.key.data == val.key.data or share > COPIED_SHARE:
            raise ValueError(f"{where} ({share:.0%} of its samples) {SAME_DATA}")
        return caches

    def _raw(self, split: str) -> FrameWindowDataset:
        path = find_split(self.root, self.task, split)
        if path.suffix == ".zarr":
            raise ValueError(f"{path} holds graphs, which are not encoded on the fly; {MAKE_CACHES}")
        dataset = open_grid(path, self.autoencoder.spec, n_steps=self.n_steps, stride=self.stride)
        return FrameWindowDataset(dataset, str(path))

    def setup(self, stage: str) -> None:
        """Open data or caches, so that bad ones stop a run before it starts."""
        _ = self.autoencoder
        if stage == "fit":
            self.dataset("train")
        self.dataset("val")

    def collate(self) -> Collate:
        """Windows come as batches."""
        return collate_windows

    def train_dataloader(self) -> DataLoader[LatentBatch]:
        """Shuffled windows of the training set; this rank's share."""
        return self.shuffled(self.dataset("train"))

    def val_dataloader(self) -> DataLoader[LatentBatch]:
        """Return the validation set in order."""
        return self.ordered(self.dataset("val"))
