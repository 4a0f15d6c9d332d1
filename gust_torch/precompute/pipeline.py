"""From converted data to latent caches: what there is to train and to encode, and doing it."""

import inspect
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from gust_torch.checkpoint import load_model
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.frames import FrameSource
from gust_torch.latents.key import DataIdentity, data_identity
from gust_torch.latents.writer import CachePlan, CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.command import Request
from gust_torch.precompute.task_data import TaskData, find_data
from gust_torch.precompute.training import Training, known_identity, plan_training, training_folder
from gust_torch.predict import Ranks
from gust_torch.terminal import silence_lightning
from solvers.common.progress import Progress
from solvers.common.stage import Stage

if TYPE_CHECKING:
    from gust_torch.models.latent_autoencoder import Batch

    Part: TypeAlias = tuple[int, Batch]

logger = logging.getLogger(__name__)
SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


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
        tasks = [TaskWork(data[task], request, ranks.device) for task in request.tasks]
        # What is wrong should show, and what is finished should be said, before other processes start. Every
        # task is looked at, so that no refusal comes late.
        done = [task.is_done for task in tasks]
        if ranks.were_started or not all(done):
            ranks.start()
        for task in tasks:
            for line in _make_task(task, ranks):
                if ranks.rank == 0:
                    report(line)


class TaskWork:
    """What there is to do for one task; process 0 decides."""

    def __init__(self, data: TaskData, request: Request, device: str) -> None:
        """Look at nothing yet.

        Args:
            data: Of the task.
            request: What is wanted.
            device: Where latents are computed, for the record.
        """
        self.data, self.request = data, request
        self._device = device
        self._identities: dict[str, DataIdentity] = {}
        self._stage: Stage | None = None

    @property
    def is_done(self) -> bool:
        """Whether neither a training nor a cache is missing.

        Raises:
            ValueError: Another training or cache is there, and may not be replaced.
        """
        if self.must_train:
            return False
        complete = [self.is_complete(self.plan(split)) for split in self.request.splits]
        return all(complete)

    @cached_property
    def training(self) -> Training | None:
        """The training of the encoder; None where the request says another one.

        Raises:
            ValueError: The data cannot be read.
        """
        if self.request.checkpoint is not None or self.request.untrained:
            return None
        splits = ("train", "val") if self.data.config.is_graph else ("train",)
        return plan_training(self.data, self.request, {split: self._identity(split) for split in splits})

    @property
    def must_train(self) -> bool:
        """Whether the encoder has to be trained first."""
        return self.training is not None and not self.training.is_finished(overwrite=self.request.overwrite)

    def begin_training(self) -> Training | None:
        """Prepare the training that is needed; None where there is none.

        Raises:
            ValueError: Another one is in its folder, and may not be replaced.
            BlockingIOError: Another process trains there.
        """
        if not self.must_train:
            return None
        assert self.training is not None
        self._stage = self.training.begin(overwrite=self.request.overwrite)
        return self.training

    def end_training(self, *, is_done: bool) -> None:
        """Let go of the training's folder."""
        if self._stage is not None:
            self._stage.finish() if is_done else self._stage.close()

    @cached_property
    def encoder(self) -> LatentAutoencoder:
        """The encoder; after its training.

        Raises:
            ValueError: It does not fit the request.
        """
        if self.request.untrained:
            return untrained_encoder(self.data, self.request)
        path = self.request.checkpoint if self.training is None else self.training.checkpoint
        assert path is not None
        return load_encoder(path, self.request)

    def folder(self, split: str) -> Path:
        """Of a finished cache."""
        return self.request.cache_dir / f"{self.data.task}_{split}"

    def plan(self, split: str) -> CachePlan:
        """Return what the cache of a split should hold.

        Raises:
            ValueError: Data and encoder do not fit.
        """
        frames = self.data.frames(split, self.encoder.spec)
        limit = self.request.limit
        return CachePlan.of(
            self.encoder,
            frames,
            task=self.data.task,
            split=split,
            source=self.data.paths[split],
            data=self._identity(split),
            batch_items=max(1, self.request.batch_size // frames.samples_per_item),
            num_items=None if limit is None else -(-limit // frames.samples_per_item),
            dtype=self.request.dtype,
            options=self.data.options,
            device=self._device,
        )

    def is_complete(self, plan: CachePlan) -> bool:
        """Whether a cache is there already.

        Raises:
            ValueError: A stale one is there and may not be replaced.
        """
        try:
            return CacheWriter(self.folder(plan.index.split), plan).is_complete
        except ValueError as error:
            if not self.request.overwrite:
                raise
            logger.info("replacing it: %s", error)
            return False

    def _identity(self, split: str) -> DataIdentity:
        """Identity of the data, hashed at most once and not at all where an earlier call did."""
        if split not in self._identities:
            known = known_identity(training_folder(self.request, self.data.task), split)
            with suppress(ValueError):  # none, or one that will be refused or replaced
                known = LatentCache.open(self.folder(split)).index.data
            found = data_identity(self.data.paths[split], known)
            for other, identity in self._identities.items():
                if identity.sha256 == found.sha256:
                    raise ValueError(
                        f"{self.data.paths[other]} and {self.data.paths[split]} hold the same data; convert "
                        f"the task again, or leave a split out by --splits {other}"
                    )
            self._identities[split] = found
        return self._identities[split]


def _make_task(task: TaskWork, ranks: Ranks) -> Iterator[str]:
    """Train the encoder of a task if need be, then make its caches."""
    training = ranks.agree(task.begin_training)
    if training is not None:
        is_done = False
        try:
            training.run()
            is_done = True
        except SystemExit as end:
            if ranks.rank == 0 and end.code in SIGNALLED:
                print("stopped; the same command continues", file=sys.stderr)
            raise
        finally:
            task.end_training(is_done=is_done)
        ranks.wait()
    for split in task.request.splits:
        plan, is_complete = ranks.agree(partial(_decide, task, split))
        start, num_encoded = time.monotonic(), 0
        if not is_complete:
            num_encoded = _make_cache(plan, task, ranks)
        yield ranks.agree(partial(describe, task.folder(split), num_encoded, time.monotonic() - start))


def _decide(task: TaskWork, split: str) -> tuple[CachePlan, bool]:
    plan = task.plan(split)
    return plan, task.is_complete(plan)


def _make_cache(plan: CachePlan, task: TaskWork, ranks: Ranks) -> int:
    """Encode what is missing of a cache and give it its name; return the number of encoded samples."""
    split = plan.index.split
    with CacheWriter(task.folder(split), plan, overwrite=task.request.overwrite) as writer:
        ranks.agree(writer.begin)
        pending = ranks.agree(lambda: writer.pending)
        encode(writer, task.data.frames(split, plan.model.spec), pending, task.request, ranks)
        writer.close_files()
        ranks.wait()
        ranks.agree(writer.finish)
    return sum(map(len, pending))


class FrameBatches(Dataset["Part"]):
    """Batches of frames: (first sample, frames)."""

    def __init__(self, frames: FrameSource, batches: Sequence[range]) -> None:
        """Remember them.

        Args:
            frames: What is encoded.
            batches: Samples of each batch; whole items.
        """
        self._frames, self._batches = frames, batches

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __getitem__(self, index: int) -> "Part":
        """Read a batch."""
        batch, each = self._batches[index], self._frames.samples_per_item
        return batch.start, self._frames.read(range(batch.start // each, batch.stop // each))


def encode(
    writer: CacheWriter, frames: FrameSource, pending: Sequence[range], request: Request, ranks: Ranks
) -> None:
    """Encode and write the pending batches; every process calls it with the same ones.

    Args:
        writer: Of the cache, begun.
        frames: What is encoded.
        pending: Batches that are missing.
        request: How to load.
        ranks: The processes.

    Raises:
        ValueError: Data that cannot be read, or latents that are not finite.
    """
    model = ranks.to_device(writer.plan.model)
    dtype = torch.float16 if writer.plan.dtype == "float16" else torch.float32
    part = f", process 0 of {ranks.num_ranks}" if ranks.num_ranks > 1 else ""
    title = f"{writer.folder.name}{part}"
    share = sum(map(len, pending[ranks.rank :: ranks.num_ranks]))
    shown = Progress(share, unit="sample", description=title) if ranks.rank == 0 else nullcontext()
    with shown as progress:

        def write(start: int, latents: Tensor) -> None:
            writer.write(start, latents)
            if progress is not None:
                progress.update(len(latents))

        ranks.predict(
            lambda batch: model.encode(batch).to(dtype),
            FrameBatches(frames, pending),
            write,
            num_workers=request.num_workers,
            pin_memory=request.pin_memory,
        )


def load_encoder(path: Path, request: Request) -> LatentAutoencoder:
    """Load a trained autoencoder.

    Raises:
        ValueError: It is none, or --latent-dim or --latent-len say otherwise.
    """
    model = load_model(path, LatentAutoencoder)
    sizes = dict(zip(("latent-len", "latent-dim"), model.latent_shape, strict=True))
    for name, found in sizes.items():
        asked = getattr(request, name.replace("-", "_"))
        if asked not in (None, found):
            raise ValueError(
                f"{path} has {name} {found}, asked for was --{name} {asked}; leave the flag out, or give "
                "another checkpoint"
            )
    return model


def untrained_encoder(data: TaskData, request: Request) -> LatentAutoencoder:
    """Return an autoencoder with random weights and the statistics of the training split.

    The seed, the configuration and the training data decide every bit of it; no global random state does.

    Raises:
        ValueError: Configuration and data do not fit together.
    """
    spec, statistics = data.spec_and_statistics()
    known = inspect.signature(LatentAutoencoder).parameters
    architecture = {name: int(value) for name, value in data.config.model.items() if name in known}
    architecture |= data.latent_sizes(request)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(request.seed or 0)
        model = LatentAutoencoder(spec, **architecture)
    model.set_statistics(statistics.mean, statistics.std)
    if statistics.box is not None:
        model.unit.set(*statistics.box)
    return model.eval()


def describe(folder: Path, num_encoded: int, seconds: float) -> str:
    """Return the line of a finished cache: folder, samples, size, key, rate.

    Raises:
        ValueError: It is damaged.
    """
    cache = LatentCache.open(folder)
    size = tqdm.format_sizeof(sum(path.stat().st_size for path in folder.iterdir()), "iB", 1024)
    rate = f"new, {num_encoded / max(seconds, 1e-9):.3g} samples/s" if num_encoded else "up to date"
    return (
        f"{folder}  {len(cache)} samples of {'{}x{}'.format(*cache.latent_shape)} {cache.key.dtype}, "
        f"{size}, key {cache.key.hex[:12]}, {rate}"
    )
