"""Making a latent cache: in a hidden folder, renamed as a whole when all samples are there."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from gust_torch.checkpoint import save_model
from gust_torch.latents.cache import (
    CHECKED,
    CHECKSUMS,
    ENCODER,
    INDEX,
    LATENTS,
    MISSING,
    PARAMETERS,
    TIME,
    TRAJECTORY,
    CacheIndex,
    LatentCache,
    crc32,
)
from gust_torch.latents.frames import FrameSource
from gust_torch.latents.key import DataIdentity, LatentKey, data_identity
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.predict import RowFile, allocate_rows
from solvers.common.files import (
    WriterLock,
    file_sha256,
    hidden_part,
    replace_folder,
    sync,
    written_aside,
)
from solvers.common.stage import RECORD, Stage

logger = logging.getLogger(__name__)

# Loader processes of a killed run hold its lock until they notice, every five seconds.
LOCK_SECONDS = 15.0


@dataclasses.dataclass(frozen=True, eq=False)
class CachePlan:
    """A cache to be made, and what is known of it before encoding.

    Attributes:
        index: Of the cache, but for checksums.
        model: The autoencoder; a copy goes into the cache.
        trajectories: (num_samples,) int64.
        times: (num_samples,) float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
    """

    index: CacheIndex
    model: LatentAutoencoder
    trajectories: np.ndarray
    times: np.ndarray
    parameters: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        model: LatentAutoencoder,
        frames: FrameSource,
        *,
        task: str,
        split: str,
        source: Path,
        data: DataIdentity,
        batch_items: int,
        num_items: int | None = None,
        dtype: str = "float32",
        options: Mapping[str, object] | None = None,
        device: str = "cpu",
    ) -> CachePlan:
        """Plan the cache of the first `num_items` items of a source, all by default.

        Args:
            model: The autoencoder.
            frames: What it encodes.
            task: Such as "burgers1d".
            split: "train", "val" or "test".
            source: Path of the data.
            data: `data_identity(source)`.
            batch_items: Items that are encoded together, the first ones, the next ones and so on. Every bit
                of the result depends on it, but on no number of processes.
            num_items: Items to encode, at most; all by default.
            dtype: "float32" or "float16".
            options: How the data become items (fields, transform), plain values for the key.
            device: Where the latents are computed.

        Raises:
            ValueError: A number out of range, an unknown dtype, or parameters that lack trajectories.
        """
        items = frames.num_items if num_items is None else min(num_items, frames.num_items)
        num_samples = items * frames.samples_per_item
        key = LatentKey.of(model, data, num_samples=num_samples, dtype=dtype, options=options)
        trajectories = frames.trajectories[:num_samples]
        short = [n for n, values in frames.parameters.items() if len(values) <= trajectories.max()]
        if short:
            raise ValueError(f"{source}: parameters {short} have fewer values than there are trajectories")
        latent_len, latent_dim = model.latent_shape
        index = CacheIndex(
            task=task,
            split=split,
            source=str(source),
            data=data,
            key=key,
            latent_len=latent_len,
            latent_dim=latent_dim,
            batch_size=batch_items * frames.samples_per_item,
            num_trajectories=max(map(len, frames.parameters.values()), default=0),
            parameter_names=tuple(frames.parameters),
            device=device,
        )
        return cls(index, model, trajectories, frames.times[:num_samples], frames.parameters)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(num_samples, latent_len, latent_dim)."""
        return self.index.num_samples, self.index.latent_len, self.index.latent_dim

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of the stored latents."""
        return np.dtype(self.index.key.dtype)

    @property
    def batches(self) -> list[range]:
        """Samples that are encoded together."""
        num, size = self.index.num_samples, self.index.batch_size
        return [range(start, min(start + size, num)) for start in range(0, num, size)]


class CacheWriter:
    """Writes the latents of a plan; several processes may write different samples at the same time.

    Process 0 calls `begin` before, and `finish` after all others are done. A process that was killed, or ran
    out of disk, leaves a state that the same plan continues: a sample whose checksum is there stays. A
    context manager.

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
        self.part = hidden_part(self.folder)
        request = {**dataclasses.asdict(plan.index.key), "batch_size": plan.index.batch_size}
        self._stage = Stage(self.part, request)
        self._is_finished = False
        self._files: tuple[RowFile, RowFile] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the finished cache is there, whole, with this key, and nobody wants it made again.

        Raises:
            ValueError: Something else is there, and may not be replaced.
        """
        if self.folder.exists() and not (self.folder / INDEX).exists():
            raise ValueError(f"{self.folder} is not a latent cache and stays; choose another --cache-dir")
        if self.overwrite or not self.folder.exists():
            return False
        if changes := LatentCache.open(self.folder).key.differences(self.plan.index.key):
            raise ValueError(
                f"{self.folder} is stale: {'; '.join(changes)}; give --overwrite to replace it, or another "
                "--cache-dir"
            )
        return True

    @property
    def pending(self) -> list[range]:
        """Batches that are not there yet, as the disk shows now; none where the cache is complete.

        Several processes agree by asking before any of them writes.
        """
        if self._is_finished or (not self.part.exists() and self.is_complete):
            return []
        missing = np.load(self.part / CHECKSUMS) == MISSING
        return [batch for batch in self.plan.batches if missing[batch.start : batch.stop].any()]

    def begin(self) -> None:
        """Find or make the unfinished cache; nothing where the finished one is there.

        Raises:
            ValueError: Without `overwrite`, another cache or an unfinished one with another key is there.
            BlockingIOError: Another process makes the cache.
            OSError: The disk has no room for it.
        """
        if self.is_complete:
            self._remove_leftovers()
            return
        self._stage.begin(overwrite=self.overwrite, timeout=LOCK_SECONDS)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def write(self, start: int, latents: Tensor | np.ndarray) -> None:
        """Write a batch.

        Args:
            start: Sample number of the first.
            latents: (n, latent_len, latent_dim), of samples `start` to `start + n`.

        Raises:
            ValueError: The shape is wrong, or a value is not finite in the cache's type.
            OSError: The disk is full.
        """
        values = latents.detach().cpu().numpy() if isinstance(latents, Tensor) else latents
        if self._files is None:
            self._files = RowFile(self.part / LATENTS), RowFile(self.part / CHECKSUMS)
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, self.plan.dtype)
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the latents of sample {start + int(bad.argmax())} hold NaN or Inf as {self.plan.dtype}; "
                "check the encoder's checkpoint, or store float32"
            )
        rows, checksums = self._files
        rows.write(start, values)
        checksums.write(start, np.array([crc32(row) for row in values], np.int64))

    def finish(self) -> None:
        """Write the index and give the cache its name; an older one goes. Process 0, after all others.

        Raises:
            ValueError: Samples are missing, or the data have changed meanwhile.
        """
        if self._is_finished or (not self.part.exists() and self.is_complete):
            self.close()
            return
        if pending := self.pending:
            raise ValueError(
                f"{self.folder}: {len(pending)} of {len(self.plan.batches)} batches are missing; repeat the "
                f"command to make them (all processes must share {self.folder.parent})"
            )
        self._refuse_changed_data()
        self._write_rest()
        replace_folder(self.part, self.folder)
        (self.folder / RECORD).unlink()
        self._is_finished = True
        self.close()

    def close_files(self) -> None:
        """Hand what is written to the system, so that process 0 sees it on another machine too."""
        for file in self._files or ():
            file.close()
        self._files = None

    def close(self) -> None:
        """Let other processes at the cache; what is unfinished stays for the next time."""
        self.close_files()
        self._stage.close()

    def __enter__(self) -> CacheWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _begin(self) -> None:
        """Prepare the files, with the lock held."""
        if self.is_complete:  # another process made it while this one waited
            shutil.rmtree(self.part)
            return
        devices = self._stage.progress.get("devices", [])
        self._stage.record(devices=[*devices, *({self.plan.index.device} - set(devices))])
        path = self.part / CHECKSUMS
        if path.is_file():
            self._forget_torn_samples()
            return
        try:
            allocate_rows(self.part / LATENTS, self.plan.shape, self.plan.dtype)
            with written_aside(path) as file:
                np.save(file, np.full(self.plan.index.num_samples, MISSING, np.int64))
        except OSError:
            shutil.rmtree(self.part)  # nothing is lost, and the disk is full
            raise

    def _forget_torn_samples(self) -> None:
        """Keep the samples that are as their checksums say; a power cut may have lost others."""
        latents = np.load(self.part / LATENTS, mmap_mode="r")
        if latents.shape != self.plan.shape or latents.dtype != self.plan.dtype:
            raise ValueError(f"{self.part / LATENTS} was exchanged; give --overwrite to start again")
        checksums = np.load(self.part / CHECKSUMS)
        there = np.flatnonzero(checksums != MISSING)
        torn = [row for row in there.tolist() if crc32(latents[row]) != checksums[row]]
        if torn:
            checksums[torn] = MISSING
            with written_aside(self.part / CHECKSUMS) as file:
                np.save(file, checksums)
        if num_kept := len(there) - len(torn):
            logger.info("%s: goes on behind %d of %d samples", self.folder, num_kept, len(latents))

    def _remove_leftovers(self) -> None:
        """Remove what an earlier call could not, unless another process works on it."""
        old = self.folder.with_name(f".{self.folder.name}.old")
        leftovers = [path for path in (old, self.part, self.folder / RECORD) if path.exists()]
        with suppress(BlockingIOError):
            lock = WriterLock(self.part) if leftovers else None
            for path in leftovers:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if lock is not None:
                lock.release()

    def _refuse_changed_data(self) -> None:
        """Latents of data that changed while they were read belong to no content: they go."""
        source, known = Path(self.plan.index.source), self.plan.index.data
        if source.exists() and data_identity(source, known).sha256 != known.sha256:
            shutil.rmtree(self.part)
            raise ValueError(
                f"{source} changed while it was encoded, so {self.folder} was not made; repeat the command"
            )

    def _write_rest(self) -> None:
        """Everything but the latents; the index last."""
        plan, index = self.plan, self.plan.index
        table = np.zeros((index.num_trajectories, len(index.parameter_names)))
        for column, values in zip(table.T, plan.parameters.values(), strict=True):
            column[:] = values
        np.save(self.part / TRAJECTORY, plan.trajectories.astype(np.int64))
        np.save(self.part / TIME, plan.times.astype(np.float64))
        np.save(self.part / PARAMETERS, table)
        # A copy: the caller's may be on a device, which would change the file.
        save_model(copy.deepcopy(plan.model).cpu(), self.part / ENCODER)
        for name in (LATENTS, *CHECKED):
            sync(self.part / name)
        index = dataclasses.replace(
            index,
            device=", ".join(self._stage.progress["devices"]),
            sha256={name: file_sha256(self.part / name) for name in sorted(CHECKED)},
        )
        with written_aside(self.part / INDEX) as file:
            file.write(index.to_json().encode())
