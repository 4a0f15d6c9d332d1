"""One shard being written: a plain .npy file that gets its name when all of its rows are on the disk."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from gust_torch.latents.index import sync
from gust_torch.latents.plan import Shard


class ShardFile:
    """Rows are written in place, in any order, by plain writes: a full disk is an OSError, not a SIGBUS."""

    def __init__(self, path: Path, shard: Shard, shape: tuple[int, int], dtype: np.dtype) -> None:
        """Touch nothing yet.

        Args:
            path: The finished file.
            shard: Its samples.
            shape: Of one sample.
            dtype: Of the values.
        """
        self.path, self.shard = path, shard
        self._shape, self._dtype = shape, dtype
        self._header = npy_header((len(shard), *shape), dtype)
        self._row_bytes = int(np.prod(shape)) * dtype.itemsize
        self._written = np.zeros(len(shard), bool)
        self._descriptor: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the finished file is there, in its full size."""
        size = len(self._header) + len(self.shard) * self._row_bytes
        return self.path.is_file() and self.path.stat().st_size == size

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    def write(self, row: int, values: np.ndarray) -> None:
        """Write samples `row` to `row + n`, numbered over the whole cache.

        Raises:
            ValueError: They have another shape, lie outside the shard, or are not finite.
            OSError: The disk is full.
        """
        start, stop = row - self.shard.start, row - self.shard.start + len(values)
        if start < 0 or stop > len(self.shard) or values.shape[1:] != self._shape:
            raise ValueError(
                f"expected latents (n, {self._shape[0]}, {self._shape[1]}) of samples {self.shard.start} to "
                f"{self.shard.stop}, got {values.shape} from sample {row} on"
            )
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, self._dtype)
        bad = ~np.isfinite(values).all(axis=(1, 2))
        if bad.any():
            raise ValueError(
                f"the latents of sample {row + int(bad.argmax())} hold NaN or Inf as {self._dtype}; check "
                "the encoder's checkpoint, or store float32"
            )
        self._write_at(len(self._header) + start * self._row_bytes, values.data.cast("B"))
        self._written[start:stop] = True

    def finish(self) -> None:
        """Put the file on the disk and give it its name.

        Raises:
            ValueError: Rows are missing.
        """
        if self.is_finished and self._descriptor is None:
            return
        if not self._written.all():
            raise ValueError(
                f"{self.path}: {int((~self._written).sum())} of {len(self.shard)} samples were not written, "
                f"the first is {self.shard.start + int(self._written.argmin())}"
            )
        assert self._descriptor is not None
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._partial)) from error
        self.close()
        os.replace(self._partial, self.path)
        sync(self.path.parent)

    def close(self) -> None:
        """Close the file; what is written stays under its temporary name and is begun again next time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_at(self, offset: int, data: memoryview) -> None:
        try:
            if self._descriptor is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._descriptor = os.open(self._partial, flags, 0o666)
                os.pwrite(self._descriptor, self._header, 0)
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._partial)) from error


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return what a .npy file of a C-ordered array begins with."""
    stream = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()
