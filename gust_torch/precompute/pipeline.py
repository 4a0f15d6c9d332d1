"""From converted data to latent caches: what there is to train and to encode, and doing it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from gust_torch.checkpoint import load_model
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.key import DataIdentity, data_identity
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.command import Request
from gust_torch.precompute.task_data import TaskData, find_data
from gust_torch.precompute.training import Training, known_identity
from gust_torch.predict import Ranks
from gust_torch.terminal import silence_lightning


def precompute(request: Request, report: Callable[[str], None] = lambda line: None) -> None:
    """Make the caches of a request, training the encoders first where it names none.

    Every process of the call goes through the same steps; process 0 decides and tells the others. Where
    nothing is missing, no other process is started.

    Args:
        request: Which caches, and how.
        report: Called in the first process with a line for each cache as it is finished.

    Raises:
        ValueError: A missing file, data that do not fit the encoder, or a stale cache without `overwrite`.
        OSError: Trouble with a file.
    """
    silence_lightning()
    data = find_data(request)
    with Ranks(
        devices=request.devices,
        accelerator=request.accelerator,
        strategy=request.strategy,
        num_nodes=request.num_nodes,
    ) as ranks:
        tasks = [TaskWork(each, request, ranks) for each in data]
        # What is wrong should show, and what is finished should be said, before other processes start. Every
        # task is looked at, so that no refusal comes late.
        done = [task.is_done() for task in tasks]
        if ranks.were_started or not all(done):
            ranks.fabric.launch()
        for task in tasks:
            for line in task.make():
                if ranks.rank == 0:
                    report(line)


class TaskWork:
    """What there is to do for one task of a request."""

    def __init__(self, data: TaskData, request: Request, ranks: Ranks) -> None:
        """Look at nothing yet."""
        self.data, self.request, self.ranks = data, request, ranks
        self._identities: dict[str, DataIdentity] = {}

    def is_done(self) -> bool:
        """Whether neither a training nor a cache is missing.

        Raises:
            ValueError: Another training or cache is there, and may not be replaced.
        """
        if self._training is not None and not self._training.is_finished():
            return False
        complete = [self._writer(split, self._identity(split)).is_complete() for split in self.request.splits]
        return all(complete)

    def make(self) -> Iterator[str]:
        """Train the encoder if need be, then make the caches; yield a line for each."""
        agree = self.ranks.agree
        if self._training is not None and not agree(self._training.is_finished):
            self._training.run(self.ranks)
        for split in self.request.splits:
            start, encoded = time.monotonic(), 0
            identity = agree(partial(self._identity, split))
            with self._writer(split, identity) as writer:
                pending = agree(writer.begin)
                if pending is not None:
                    encode(writer, pending, self.request, self.ranks)
                    writer.close_files()
                    self.ranks.wait()
                    agree(writer.finish)
                    encoded = sum(map(len, pending))
            yield agree(partial(describe, writer.folder, encoded, time.monotonic() - start))

    @cached_property
    def _training(self) -> Training | None:
        """The training of the encoder; None where the request says another one."""
        if self.request.checkpoint is not None or self.request.untrained:
            return None
        splits = ("train", "val") if self.data.config.is_graph else ("train",)
        return Training(self.data, self.request, {split: self._identity(split) for split in splits})

    @cached_property
    def _encoder(self) -> LatentAutoencoder:
        """The encoder; after its training."""
        if self.request.untrained:
            return self.data.untrained_encoder(self.request)
        path = self.request.checkpoint if self._training is None else self._training.checkpoint
        assert path is not None
        model = load_model(path, LatentAutoencoder)
        for name, found in zip(("latent_len", "latent_dim"), model.latent_shape, strict=True):
            asked = getattr(self.request, name)
            if asked not in (None, found):
                flag = name.replace("_", "-")
                raise ValueError(f"{path} has {flag} {found}, asked for was --{flag} {asked}; leave it out")
        return model

    def _folder(self, split: str) -> Path:
        return self.request.cache_dir / f"{self.data.task}_{split}"

    def _writer(self, split: str, identity: DataIdentity) -> CacheWriter:
        device = self.ranks.fabric.device
        return CacheWriter(
            self._folder(split),
            self._encoder,
            self.data.frames(split, self._encoder.spec),
            task=self.data.task,
            split=split,
            source=self.data.paths[split],
            data=identity,
            batch_size=self.request.batch_size,
            limit=self.request.limit,
            dtype=self.request.dtype,
            options=self.data.options,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            overwrite=self.request.overwrite,
        )

    def _identity(self, split: str) -> DataIdentity:
        """Identity of the data, hashed at most once, and not at all where an earlier call did."""
        if split not in self._identities:
            known = known_identity(self.request, self.data.task, split)
            with suppress(ValueError):  # none, or one that will be refused or replaced
                known = LatentCache(self._folder(split)).index.data
            found = data_identity(self.data.paths[split], known)
            for other, identity in self._identities.items():
                if identity.sha256 == found.sha256:
                    text = f"{self.data.paths[other]} and {self.data.paths[split]} hold the same data"
                    raise ValueError(f"{text}; convert the task again, or leave one out by --splits {other}")
            self._identities[split] = found
        return self._identities[split]


def encode(writer: CacheWriter, pending: Sequence[range], request: Request, ranks: Ranks) -> None:
    """Encode and write the pending batches; every process calls it with the same ones.

    Raises:
        ValueError: Data that cannot be read, or latents that are not finite.
    """
    model = writer.model.to(ranks.fabric.device)
    dtype = getattr(torch, writer.index.key.dtype)

    def compute(batch: Tensor) -> Tensor:
        latents: Tensor = model.encode(batch).to(dtype)
        return latents

    ranks.predict(
        compute,
        writer.frames.read_samples,
        pending,
        writer.write,
        title=writer.folder.name,
        num_workers=request.num_workers,
        pin_memory=request.pin_memory,
    )


def describe(folder: Path, num_encoded: int, seconds: float) -> str:
    """Return the line of a finished cache: folder, samples, size, key, rate.

    Raises:
        ValueError: It is damaged.
    """
    cache = LatentCache(folder)
    size = tqdm.format_sizeof(sum(path.stat().st_size for path in folder.iterdir()), "iB", 1024)
    rate = f"new, {num_encoded / max(seconds, 1e-9):.3g} samples/s" if num_encoded else "up to date"
    return (
        f"{folder}  {len(cache)} samples of {'{}x{}'.format(*cache.latent_shape)} {cache.key.dtype}, "
        f"{size}, key {cache.key.hex[:12]}, {rate}"
    )
