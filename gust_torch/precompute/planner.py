"""Decides, in process 0, what is to be trained and encoded."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gust_torch.latents.key import DataIdentity, data_identity
from gust_torch.latents.plan import CachePlan, plan_cache
from gust_torch.latents.store import LatentCache
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.encoder import load_encoder, untrained_encoder
from gust_torch.precompute.options import Compute, Request
from gust_torch.precompute.sources import TaskData
from gust_torch.precompute.training import Training, plan_training, read_record, training_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """A cache and whether it has to be made.

    Attributes:
        folder: `<cache-dir>/<task>_<split>`.
        plan: Of the cache.
        is_complete: Whether it is there already.
        overwrite: Whether a stale one may be replaced.
    """

    folder: Path
    plan: CachePlan
    is_complete: bool
    overwrite: bool

    def writer(self) -> CacheWriter:
        """Return a writer of the cache."""
        return CacheWriter(self.folder, self.plan, overwrite=self.overwrite)


class TaskPlanner:
    """What there is to do for one task."""

    def __init__(self, data: TaskData, request: Request, compute: Compute, device: str) -> None:
        """Look at nothing yet.

        Args:
            data: Of the task.
            request: What is wanted.
            compute: How.
            device: Where latents are computed, for the record.
        """
        self._data, self._request, self._compute, self._device = data, request, compute, device
        self._identities: dict[str, DataIdentity] = {}

    @cached_property
    def training(self) -> Training | None:
        """The training of the encoder; None where the request says another one.

        Raises:
            ValueError: The data cannot be read.
        """
        if self._request.checkpoint is not None or self._request.untrained:
            return None
        splits = ("train", "val") if self._data.config.is_graph else ("train",)
        identities = {split: self._identity(split) for split in splits}
        return plan_training(self._data, self._request, self._compute, identities)

    @property
    def must_train(self) -> bool:
        """Whether the encoder has to be trained first.

        Raises:
            ValueError: Another training is in its folder, and may not be replaced.
        """
        if self.training is None:
            return False
        try:
            return not self.training.is_finished
        except ValueError:
            if not self._request.overwrite:
                raise
            return True

    def begin_training(self, *, overwrite: bool) -> Training | None:
        """Prepare the training that is needed; None where there is none.

        Args:
            overwrite: Whether another one in its folder may be removed.

        Raises:
            ValueError: See `must_train`.
        """
        if not self.must_train:
            return None
        assert self.training is not None
        self.training.begin(overwrite=overwrite)
        return self.training

    @cached_property
    def encoder(self) -> LatentAutoencoder:
        """The encoder; after its training.

        Raises:
            ValueError: It does not fit the request.
        """
        if self._request.untrained:
            return untrained_encoder(self._data, self._request)
        path = self._request.checkpoint if self.training is None else self.training.checkpoint
        assert path is not None
        return load_encoder(path, self._request)

    def job(self, split: str) -> Job:
        """Return the cache of a split.

        Raises:
            ValueError: Data and encoder do not fit, or a stale cache is there and may not be replaced.
        """
        plan = self._plan(split)
        folder = self._folder(split)
        overwrite = self._request.overwrite
        try:
            is_complete = CacheWriter(folder, plan).is_complete
        except ValueError as error:
            if not overwrite:
                raise
            logger.info("replacing it: %s", error)
            is_complete = False
        return Job(folder, plan, is_complete, overwrite)

    def _plan(self, split: str) -> CachePlan:
        """Return what the cache of a split should hold."""
        frames = self._data.frames(split, self.encoder.spec)
        limit = self._request.limit
        return plan_cache(
            self.encoder,
            frames,
            task=self._data.task,
            split=split,
            source=self._data.paths[split],
            data=self._identity(split),
            batch_items=max(1, self._compute.batch_size // frames.samples_per_item),
            num_items=None if limit is None else -(-limit // frames.samples_per_item),
            dtype=self._request.dtype,
            options=self._data.options,
            device=self._device,
        )

    def _folder(self, split: str) -> Path:
        return self._request.cache_dir / f"{self._data.task}_{split}"

    def _identity(self, split: str) -> DataIdentity:
        """Identity of the data, hashed at most once and not at all where an earlier call did."""
        if split not in self._identities:
            self._identities[split] = data_identity(self._data.paths[split], known=self._known(split))
        return self._identities[split]

    def _known(self, split: str) -> DataIdentity | None:
        """Return what an earlier call noted in the cache of the split or beside the training."""
        with suppress(ValueError):  # none, or one that will be refused or replaced
            return LatentCache.open(self._folder(split)).index.data
        with suppress(ValueError):  # one that this call may not need
            record = read_record(training_folder(self._request, self._data.task))
            if record is not None and split in record["data"]:
                return DataIdentity.from_dict(record["data"][split])
        return None
