"""Making a latent cache: in a hidden folder, renamed as a whole when all samples are there."""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

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
from solvers.common.files import WriterLock, file_sha256, hidden_part, replace_folder, sync, written_aside
from solvers.common.stage import RECORD, Stage

logger = logging.getLogger(__name__)

# Loader processes of a killed run hold its lock until they notice, every five seconds.
LOCK_SECONDS = 15.0


class CacheWriter:
    """Makes a cache in the hidden folder `.NAME.part`, and gives it its name at the end.

    Process 0 calls `begin` and `finish`; any number of processes call `write`, each sample once. A batch is
    finished when its checksums are written; a killed run leaves the folder, and the next one of the same
    key makes the other batches. A context manager.

    Attributes:
        index: What the cache will hold, but for checksums.
    """

    def __init__(
        self,
        folder: Path,
        model: LatentAutoencoder,
        frames: FrameSource,
        *,
        task: str,
        split: str,
        source: Path,
        data: DataIdentity,
        batch_size: int,
        limit: int | None = None,
        dtype: str = "float32",
        options: Mapping[str, object] | None = None,
        device: str = "cpu",
        overwrite: bool = False,
    ) -> None:
        """Plan a cache; nothing is written.

        Args:
            folder: Of the finished cache.
            model: The autoencoder.
            frames: What it encodes.
            task: Such as "burgers1d".
            split: "train", "val" or "test".
            source: Path of the data.
            data: `data_identity(source)`.
            batch_size: Samples that are encoded together, the first ones, the next ones and so on; rounded
                to whole items. Every bit of the result depends on it, but on no number of processes.
            limit: Encode the first samples only, so many; rounded up to whole items.
            dtype: "float32" or "float16".
            options: How the data become items (fields, transform), plain values for the key.
            device: Where the latents are computed.
            overwrite: Replace a cache of another key, once the new one is complete.

        Raises:
            ValueError: Parameters lack trajectories.
        """
        self.folder, self.model, self.frames, self._overwrite = folder, model, frames, overwrite
        each, total = frames.samples_per_item, len(frames.trajectories)
        num_samples = total if limit is None else min(total, -(-limit // each) * each)
        last = frames.trajectories[:num_samples].max()
        if short := [name for name, values in frames.parameters.items() if len(values) <= last]:
            raise ValueError(f"{source}: parameters {short} have fewer values than there are trajectories")
        latent_len, latent_dim = model.latent_shape
        self.index = CacheIndex(
            task=task,
            split=split,
            source=str(source),
            data=data,
            key=LatentKey.of(model, data, num_samples=num_samples, dtype=dtype, options=options),
            latent_len=latent_len,
            latent_dim=latent_dim,
            batch_size=max(1, batch_size // each) * each,
            num_trajectories=max(map(len, frames.parameters.values()), default=0),
            parameter_names=tuple(frames.parameters),
            device=device,
        )
        self.part = hidden_part(folder)
        request = {**dataclasses.asdict(self.index.key), "batch_size": self.index.batch_size}
        self._stage = Stage(self.part, request)
        self._files: tuple[RowFile, RowFile] | None = None

    def is_complete(self) -> bool:
        """Whether the finished cache is there, whole, with this key.

        Raises:
            ValueError: Something else is there, and may not be replaced.
        """
        if not self.folder.exists():
            return False
        if not (self.folder / INDEX).exists():
            raise ValueError(f"{self.folder} is not a latent cache and stays; choose another --cache-dir")
        try:
            cache = LatentCache(self.folder)
            if self._overwrite:
                cache.verify()  # it is the remedy for a damaged cache, too
            if changes := cache.key.differences(self.index.key):
                text = f"{self.folder} is stale: {'; '.join(changes)}"
                raise ValueError(f"{text}; give --overwrite to replace it, or another --cache-dir")
        except ValueError as error:
            if not self._overwrite:
                raise
            logger.info("replacing it: %s", error)
            return False
        return True

    def begin(self) -> list[range] | None:
        """Find or make the unfinished cache; return the batches that are missing, None if it is complete.

        Raises:
            ValueError: Without `overwrite`, another cache or an unfinished one with another key is there.
            BlockingIOError: Another process makes the cache.
            OSError: The disk has no room for it.
        """
        if self.is_complete():
            self._remove_leftovers()
            return None
        self._stage.begin(overwrite=self._overwrite, timeout=LOCK_SECONDS)
        if self.is_complete():  # another process made it while this one waited
            shutil.rmtree(self.part)
            return None
        devices = self._stage.progress.get("devices", [])
        self._stage.record(devices=[*devices, *({self.index.device} - set(devices))])
        self._find_or_allocate()
        return self._pending()

    def write(self, start: int, latents: Tensor | np.ndarray) -> None:
        """Write latents (n, latent_len, latent_dim) of samples from `start` on; none may be NaN or Inf."""
        if self._files is None:
            self._files = RowFile(self.part / LATENTS), RowFile(self.part / CHECKSUMS)
        dtype = self.index.key.dtype
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(latents, dtype)
        bad = ~np.isfinite(values).all(axis=(1, 2))
        if bad.any():
            text = f"the latents of sample {start + int(bad.argmax())} hold NaN or Inf as {dtype}"
            raise ValueError(f"{text}; check the encoder's checkpoint, or store float32")
        rows, checksums = self._files
        rows.write(start, values)
        checksums.write(start, np.array([crc32(row) for row in values], np.int64))

    def finish(self) -> None:
        """Write the rest and give the cache its name; an older one goes. Process 0, after all others.

        Raises:
            ValueError: Samples are missing, or the data have changed meanwhile.
        """
        if pending := self._pending():
            text = f"{self.folder}: {len(pending)} batches are missing"
            raise ValueError(f"{text}; repeat the command, on a folder that all processes share")
        source, known = Path(self.index.source), self.index.data
        if source.exists() and data_identity(source, known).sha256 != known.sha256:
            shutil.rmtree(self.part)  # latents of data that changed while they were read
            raise ValueError(f"{source} changed while it was encoded; repeat the command")
        self._write_rest()
        replace_folder(self.part, self.folder)
        (self.folder / RECORD).unlink()

    def close_files(self) -> None:
        """Hand what is written to the system, so that process 0 sees it on another machine too."""
        for file in self._files or ():
            file.close()
        self._files = None

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes at the cache; what is unfinished stays for the next time."""
        self.close_files()
        self._stage.close()

    def _pending(self) -> list[range]:
        missing = np.load(self.part / CHECKSUMS) == MISSING
        samples, size = range(len(missing)), self.index.batch_size
        batches = (samples[start : start + size] for start in samples[::size])
        return [batch for batch in batches if missing[batch.start : batch.stop].any()]

    def _find_or_allocate(self) -> None:
        """Keep the samples that are as their checksums say, where there are some; all others are missing."""
        path = self.part / CHECKSUMS
        is_new = not path.is_file()
        try:
            if is_new:
                allocate_rows(self.part / LATENTS, *self.index.arrays[LATENTS])
                checksums = np.full(self.index.key.num_samples, MISSING, np.int64)
            else:
                checksums, latents = np.load(path), np.load(self.part / LATENTS, mmap_mode="r")
                there = np.flatnonzero(checksums != MISSING).tolist()
                torn = [row for row in there if crc32(latents[row]) != checksums[row]]  # by a power cut
                checksums[torn] = MISSING
                kept = len(there) - len(torn)
                logger.info("%s: goes on behind %d of %d samples", self.folder, kept, len(latents))
            with written_aside(path) as file:
                np.save(file, checksums)
        except OSError:
            if is_new:
                shutil.rmtree(self.part)  # nothing is lost, and the disk is full
            raise

    def _remove_leftovers(self) -> None:
        """Remove what a kill at the end of an earlier call left, unless another process works on it."""
        old = self.folder.with_name(f".{self.folder.name}.old")
        if left := [path for path in (old, self.part, self.folder / RECORD) if path.exists()]:
            with suppress(BlockingIOError), WriterLock(self.part):
                for path in left:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write_rest(self) -> None:
        """Everything but the latents; the index last."""
        index, frames = self.index, self.frames
        table = np.zeros((index.num_trajectories, len(index.parameter_names)))
        for column, values in zip(table.T, frames.parameters.values(), strict=True):
            column[:] = values
        np.save(self.part / PARAMETERS, table)
        np.save(self.part / TRAJECTORY, frames.trajectories[: index.key.num_samples].astype(np.int64))
        np.save(self.part / TIME, frames.times[: index.key.num_samples].astype(np.float64))
        # A copy: the caller's may be on a device, which would change the file.
        save_model(copy.deepcopy(self.model).cpu(), self.part / ENCODER)
        for name in (LATENTS, *CHECKED):
            sync(self.part / name)
        index = dataclasses.replace(
            index,
            device=", ".join(self._stage.progress["devices"]),
            sha256={name: file_sha256(self.part / name) for name in CHECKED},
        )
        with written_aside(self.part / INDEX) as file:
            file.write(index.to_json().encode())
