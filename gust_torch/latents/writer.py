"""Making a latent cache: shards in a hidden folder, renamed as a whole when all of them are there."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from gust_torch.checkpoint import save_model
from gust_torch.latents.index import (
    ENCODER,
    INDEX,
    PARAMETERS,
    TIME,
    TRAJECTORY,
    CacheIndex,
    sync,
    write_durably,
)
from gust_torch.latents.journal import Journal, read_journal, write_journal
from gust_torch.latents.key import data_identity
from gust_torch.latents.plan import CachePlan, Shard
from gust_torch.latents.shards import ShardFile
from gust_torch.latents.store import LatentCache
from solvers.common.files import WriterLock

logger = logging.getLogger(__name__)

# Loader processes of a killed run hold its lock until they notice, every five seconds.
LOCK_SECONDS = 15.0


class CacheWriter:
    """Writes the shards of a plan; several processes may write different shards at the same time.

    Process 0 calls `begin` before, and `finish` after all others are done. A process that was killed, or ran
    out of disk, leaves a state that the same plan continues: finished shards are kept. A context manager.

    Attributes:
        folder: Of the finished cache, `<cache-dir>/<task>_<split>`.
        part: Of the unfinished one, hidden beside it.
        plan: What is made.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: CachePlan, *, overwrite: bool = False) -> None:
        """Name the folders; nothing is touched.

        Args:
            folder: Of the finished cache.
            plan: What to make.
            overwrite: Make it again and replace what is there, once the new one is complete.
        """
        self.folder, self.plan, self.overwrite = Path(folder), plan, overwrite
        self.part = self.folder.with_name(f".{self.folder.name}.part")
        self._old = self.folder.with_name(f".{self.folder.name}.old")
        self._lock: WriterLock | None = None
        self._is_finished = False
        self._open: dict[int, ShardFile] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the finished cache is there, whole, with this key, and nobody wants it made again.

        Raises:
            ValueError: Something else is there, and may not be replaced.
        """
        if self.overwrite or not self.folder.exists():
            return False
        try:
            cache = LatentCache.open(self.folder)
        except ValueError as error:
            if not (self.folder / INDEX).exists():
                raise ValueError(
                    f"{self.folder} is not a latent cache; choose another --cache-dir"
                ) from error
            raise
        if changes := cache.key.differences(self.plan.key):
            raise ValueError(
                f"{self.folder} is stale: {'; '.join(changes)}; give --overwrite to replace it, or another "
                "--cache-dir"
            )
        return True

    @property
    def pending(self) -> list[Shard]:
        """Shards that are not finished yet, as the disk shows now; none where the cache is complete.

        Several processes agree by asking before any of them writes.
        """
        if self._is_finished or (not self.part.exists() and self.is_complete):
            return []
        return [shard for shard in self.plan.shards if not self._shard_file(shard).is_finished]

    def begin(self) -> None:
        """Find or make the unfinished cache; nothing where the finished one is there.

        Raises:
            ValueError: Without `overwrite`, another cache or an unfinished one with another key is there.
            BlockingIOError: Another process makes the cache.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _wait_for_lock(self.folder)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def write(self, shard: Shard, row: int, latents: Tensor | np.ndarray) -> None:
        """Write a batch.

        Args:
            shard: Of `pending`.
            row: Sample number of the first, counted over the whole cache.
            latents: (n, latent_len, latent_dim), of samples `row` to `row + n`, all in the shard.

        Raises:
            ValueError: The shape is wrong, or a value is not finite in the cache's type.
            OSError: The disk is full.
        """
        if shard.index not in self._open:
            self._open[shard.index] = self._shard_file(shard)
        values = latents.detach().cpu().numpy() if isinstance(latents, Tensor) else latents
        self._open[shard.index].write(row, values)

    def finish_shard(self, shard: Shard) -> None:
        """Give a shard its name, now that all of its samples are written.

        Raises:
            ValueError: Samples are missing.
        """
        self._open.pop(shard.index, self._shard_file(shard)).finish()

    def finish(self) -> None:
        """Write the index and give the cache its name; an older one goes. Process 0, after all others.

        Raises:
            ValueError: Shards are missing, or the data have changed meanwhile.
        """
        if self._is_finished or (not self.part.exists() and self.is_complete):
            self.close()
            return
        if pending := self.pending:
            raise ValueError(
                f"{self.folder}: {len(pending)} of {len(self.plan.shards)} shards are missing; repeat the "
                f"command to make them (all processes must share {self.folder.parent})"
            )
        self._refuse_changed_data()
        self._write_rest()
        if self.folder.exists():
            shutil.rmtree(self._old, ignore_errors=True)  # what an earlier call could not remove
            os.replace(self.folder, self._old)
        shutil.rmtree(self._old, ignore_errors=True)
        os.replace(self.part, self.folder)
        sync(self.folder.parent)
        self._is_finished = True
        self.close()

    def close(self) -> None:
        """Close files and let other processes at the cache; what is unfinished stays for the next time."""
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> CacheWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _shard_file(self, shard: Shard) -> ShardFile:
        return ShardFile(self.part / shard.file, shard, self.plan.latent_shape, self.plan.dtype)

    def _begin(self) -> None:
        """`begin`, with the lock held."""
        if self.is_complete:
            for leftover in (self._old, self.part):
                shutil.rmtree(leftover, ignore_errors=True)
            return
        if self.folder.exists() and not (self.folder / INDEX).exists():
            raise ValueError(f"{self.folder} is not a latent cache and stays; choose another --cache-dir")
        journal = self._read_journal()
        if journal is not None and (changes := self._changes(journal)):
            if not self.overwrite:
                raise ValueError(
                    f"{self.part} holds an unfinished cache: {'; '.join(changes)}; repeat that command to "
                    "finish it, or give --overwrite to start again"
                )
            journal = None
        if journal is None:
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir()
        elif num_done := len(self.plan.shards) - len(self.pending):
            logger.info("%s: goes on behind %d of %d shards", self.folder, num_done, len(self.plan.shards))
        devices = () if journal is None else journal.devices
        if self.plan.device not in devices:
            devices = (*devices, self.plan.device)
        write_journal(self.part, Journal(self.plan.key, self.plan.batch_size, devices))

    def _read_journal(self) -> Journal | None:
        """Return what an earlier run left; None where there is nothing that can be continued."""
        try:
            return read_journal(self.part)
        except ValueError as error:
            logger.warning("%s; starting again", error)
            return None

    def _changes(self, journal: Journal) -> list[str]:
        """Return what the unfinished cache has different from the plan, in words."""
        changes = journal.key.differences(self.plan.key)
        if journal.batch_size != self.plan.batch_size:
            changes.append(
                f"batches of {journal.batch_size} samples were encoded, {self.plan.batch_size} now"
            )
        return changes

    def _refuse_changed_data(self) -> None:
        """Latents of data that changed while they were read belong to no content: they go."""
        source, known = Path(self.plan.source), self.plan.data
        if source.exists() and data_identity(source, known).sha256 != known.sha256:
            shutil.rmtree(self.part)
            raise ValueError(
                f"{source} changed while it was encoded, so {self.folder} was not made; repeat the command"
            )

    def _write_rest(self) -> None:
        """Everything but the shards; the index last."""
        plan, journal = self.plan, read_journal(self.part)
        num_trajectories = max((len(values) for values in plan.parameters.values()), default=0)
        table = np.zeros((num_trajectories, len(plan.parameters)))
        for i, values in enumerate(plan.parameters.values()):
            table[:, i] = values
        for name, array in (
            (TRAJECTORY, plan.trajectories.astype(np.int64)),
            (TIME, plan.times.astype(np.float64)),
            (PARAMETERS, table),
        ):
            np.save(self.part / name, array)
            sync(self.part / name)
        # A copy: the caller's may be on a device, which would change the file.
        save_model(copy.deepcopy(plan.model).cpu(), self.part / ENCODER)
        sync(self.part / ENCODER)
        devices = (plan.device,) if journal is None else journal.devices
        write_durably(self.part / INDEX, CacheIndex.of(plan, ", ".join(devices)).to_json().encode())
        expected = {INDEX, TRAJECTORY, TIME, PARAMETERS, ENCODER, *(shard.file for shard in plan.shards)}
        for path in self.part.iterdir():  # the journal, and what a kill left half-written
            if path.name not in expected:
                path.unlink()
        sync(self.part)


def _wait_for_lock(folder: Path) -> WriterLock:
    """Return the lock of a cache, after a while where another process has it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return WriterLock(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            logger.info("%s: waiting for another process that writes it", folder)
            time.sleep(0.5)
