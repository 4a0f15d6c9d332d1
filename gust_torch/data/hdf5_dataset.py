"""Map-style dataset over files in the common HDF5 format, read when asked for."""

import bisect
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

from gust_torch.data.files import PathLike, common_parameters, common_spec, expand_paths, read_header
from gust_torch.data.readers import FileHandles
from gust_torch.data.samples import (
    MAX_SAMPLES,
    channel_statistics,
    check_times,
    concatenate_trajectories,
    window_frames,
)
from gust_torch.identity import evenly_spaced

logger = logging.getLogger(__name__)

# What netCDF writes into cells that nobody has written.
NETCDF_FILL = 9.969209968386869e36
# A batch whose sum is below this holds neither that nor NaN or Inf.
LARGE = 1e30
# Of the first and last row of a periodic axis, against the difference of neighbors: the same values.
SAME_ENDS = 1e-4


class FrameBatch(list[Tensor]):
    """Items of one batch that are views of one tensor, `stacked`: (b, c, h, w) or (b, t, c, h, w)."""

    def __init__(self, stacked: Tensor) -> None:
        super().__init__(stacked.unbind(0))
        self.stacked = stacked


def _collate_tensors(items: list[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    if isinstance(items, FrameBatch):
        return items.stacked
    return collate_tensor_fn(items, collate_fn_map=collate_fn_map)


# A `DataLoader` without a collate_fn has `default_collate`, which looks up here what to do with tensors. It
# would copy a batch that is one already.
default_collate_fn_map[Tensor] = _collate_tensors


class HDF5Dataset(Dataset[Tensor]):
    """Map-style dataset of float32 fields: items (c, h, w), or windows (t, c, h, w) for n_steps > 1.

    Nothing but headers, times and trajectories is read before an item is asked for, and then only the item.
    Several files are concatenated. Safe in forked and spawned `DataLoader` workers. `__getitems__` reads a
    batch at once, and a `DataLoader` does not copy it.

    Attributes:
        spec: Channel names, grid, boundaries, domain lengths.
        times: (n_samples,) float64, for windows (n_samples, n_steps); NaN where a file has no times.
        trajectories: (n_samples,) int64, unique over all files.
        is_local: Whether all files are on this machine.
    """

    def __init__(
        self,
        data_path: PathLike | Sequence[PathLike],
        fields: str | Sequence[str] | None = None,
        normalize: bool = False,
        sample_start: int = 0,
        sample_stop: int | None = None,
        n_steps: int = 1,
        stride: int = 1,
        allow_external: bool = False,
    ) -> None:
        """Open the files' headers.

        Args:
            data_path: A file, a glob, an fsspec URL, or a list of these; concatenated in this order.
            fields: Field names, stacked as channels in this order; all of the file by default. A vector field
                stands for its components, ``velocity_x`` for one of them; ``omega`` and ``vorticity`` are the
                same.
            normalize: Give ``(x - mean) / std`` instead of physical values.
            sample_start: First frame to use, counted over the concatenation.
            sample_stop: End of the frames to use (exclusive, at most the number of frames). Of windows, those
                that lie wholly inside the range are used.
            n_steps: Frames in an item.
            stride: Frames from one of an item's frames to the next.
            allow_external: Follow HDF5 links and external storage to other files. They may name any
                file that you can read, so allow it only for files that you trust.

        Raises:
            ValueError: A file that is missing, truncated or does not fit the others, a field that is not
                there, or a range without samples; the message names the file and the remedy.
        """
        if n_steps < 1 or stride < 1:
            raise ValueError(f"expected n_steps >= 1 and stride >= 1, got {n_steps} and {stride}")
        self.n_steps, self.stride = n_steps, stride
        paths = expand_paths(data_path)
        self._sources = [read_header(path, fields, allow_external=allow_external) for path in paths]
        self.spec = common_spec(self._sources)
        self.is_local = all(source.stamp is not None for source in self._sources)
        self._starts = [0, *np.cumsum([source.num_frames for source in self._sources]).tolist()]
        trajectories = concatenate_trajectories([source.trajectory for source in self._sources])
        times = np.concatenate([source.time for source in self._sources])
        where = self._sources[0].name
        # (n_samples, n_steps) frame numbers over the concatenation
        frames = window_frames(trajectories, n_steps, stride, sample_start, sample_stop, where=where)
        self._frames = frames[check_times(times[frames], where=where)]
        self.trajectories = trajectories[self._frames[:, 0]]
        self.times = times[self._frames[:, 0] if n_steps == 1 else self._frames]
        self._handles = FileHandles(self._sources)
        # A pass over the values costs a quarter of reading them, so each process looks at a frame once.
        self._is_checked = np.zeros(self._starts[-1], bool)
        self._statistics: tuple[Tensor, Tensor] | None = None
        self._has_fills = any(source.fills for source in self._sources)
        self._warn_of_both_ends()
        self.normalized = normalize
        if normalize:
            self.statistics()  # once here, not once in each worker

    @property
    def n_samples(self) -> int:
        """Number of items."""
        return len(self._frames)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of an item: (c, h, w) or (t, c, h, w)."""
        shape = (self.spec.num_channels, *self.spec.grid)
        return shape if self.n_steps == 1 else (self.n_steps, *shape)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Physical parameters, name -> (num_trajectories,) float64; `[trajectories]` gives each item's.

        Empty where the files have none; NaN at ids that no frame has. ValueError where the files differ.
        """
        return common_parameters(self._sources)

    @property
    def mean(self) -> Tensor:
        """Mean of each channel, (c, 1, 1) float32, from at most 256 evenly spaced frames."""
        return self.statistics()[0]

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel, (c, 1, 1) float32, of the same frames; 1 if it is constant."""
        return self.statistics()[1]

    def statistics(self, samples: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (c, 1, 1) float32, of at most 256 evenly spaced samples.

        Of all by default, else of some indices, such as a training split; of a window its first frame.
        """
        if samples is None and self._statistics is not None:
            return self._statistics
        chosen = np.arange(self.n_samples) if samples is None else np.asarray(samples)
        frames = (self.first_frames(chosen[[i]])[0] for i in evenly_spaced(len(chosen), MAX_SAMPLES))
        mean, std = channel_statistics(frames, self.spec.names)
        result = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        if samples is None:
            self._statistics = result
        return result

    def normalize(self, x: Tensor) -> Tensor:
        """``(x - mean) / std``, (..., c, h, w)."""
        return (x - self.mean.to(x)) / self.std.to(x)

    def __len__(self) -> int:
        """Return the number of items."""
        return self.n_samples

    def __getitem__(self, index: int) -> Tensor:
        """One item; raises as `__getitems__`."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> FrameBatch:
        """Items in the order asked for, views of one tensor that is read at once.

        Raises:
            IndexError: An index is out of range.
            ValueError: A frame can't be read or holds NaN or Inf.
        """
        frames = self._frames[np.asarray(indices, dtype=np.int64)].ravel().tolist()
        batch = torch.from_numpy(self._read(frames)).reshape(len(indices), *self.sample_shape)
        if self.normalized:
            batch.sub_(self.mean).div_(self.std)
        return FrameBatch(batch)

    def first_frames(self, samples: np.ndarray) -> np.ndarray:
        """Raw first frame of each of some samples, (n, c, h, w)."""
        return self._read(self._frames[samples, 0].tolist())

    def where(self, sample: int) -> str:
        """Name the file of a sample."""
        return self._sources[self._place(int(self._frames[sample, 0]))[0]].name

    def close(self) -> None:
        """Close the files of this process; they open again when needed."""
        self._handles.close()

    def _place(self, frame: int) -> tuple[int, int]:
        """Return the file of a frame, and its number there."""
        index = bisect.bisect_right(self._starts, frame) - 1
        return index, frame - self._starts[index]

    def _read(self, frames: list[int]) -> np.ndarray:
        """Frames in the order asked for, (n, c, h, w) float32; the files are gone through in their order."""
        # torch.empty: its memory is taken again sooner than numpy's, a tenth of the time of a batch.
        out = torch.empty((len(frames), self.spec.num_channels, *self.spec.grid)).numpy()
        rows = sorted(range(len(frames)), key=frames.__getitem__)
        start = 0
        while start < len(rows):
            index, _ = self._place(frames[rows[start]])
            first, end = self._starts[index : index + 2]
            stop = bisect.bisect_left(rows, end, lo=start, key=frames.__getitem__)
            part = rows[start:stop]
            self._read_file(index, [frames[row] - first for row in part], part, out)
            start = stop
        if not self._is_checked[frames].all():
            # A sum shows NaN and Inf in one fast pass. Huge but finite values may overflow it, hence the
            # second look.
            total = abs(torch.from_numpy(out).sum().item())
            if not total < LARGE or self._has_fills:
                self._look_closely(frames, out)
            self._is_checked[frames] = True
        return out

    def _read_file(self, index: int, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Frames of one file, in increasing order, into rows of `out`."""
        try:
            self._handles.file(index).read(frames, rows, out)
        except (OSError, RuntimeError) as error:
            where = f"{self._sources[index].name}: frames {frames[0]} to {frames[-1]}"
            remedy = "truncated or damaged: copy it again, or leave them out by sample_start/_stop"
            raise ValueError(f"{where} cannot be read ({error}); the file is {remedy}") from error

    def _look_closely(self, frames: list[int], values: np.ndarray) -> None:
        """Raise ValueError where frames hold NaN, Inf or what stands for missing cells."""
        for row, frame in enumerate(frames):
            index, number = self._place(frame)
            source = self._sources[index]
            for channel, cells in zip(source.channels, values[row], strict=True):
                fills = np.array([NETCDF_FILL, *source.fills.get(channel.field, ())], np.float32)
                missing = np.argwhere(np.isin(cells, fills))
                if np.isfinite(cells).all() and not len(missing):
                    continue
                what, remedy = "NaN or Inf", "repeat the run with a smaller dt"
                if len(missing):
                    place = tuple(missing[0].tolist())
                    what = f"{len(missing)} missing cells ({cells[place]:g}), the first at {place},"
                    remedy = "fill them in"
                text = f"{source.name}: {channel.name} holds {what} in frame {number}"
                raise ValueError(f"{text}; leave it out by sample_start/sample_stop, or {remedy}")

    def _warn_of_both_ends(self) -> None:
        """Tell of a periodic axis whose last row repeats the first: both ends of the period are stored."""
        frame = np.empty((1, self.spec.num_channels, *self.spec.grid), np.float32)
        with contextlib.suppress(ValueError):  # a frame that cannot be read is told when it is asked for
            self._read_file(0, [0], [0], frame)
            for axis, name in enumerate(("x", "y")):
                values = np.moveaxis(frame[0], 1 + axis, 0)
                if self.spec.boundary[axis] != "periodic" or len(values) < 4 or np.ptp(values[:2]) == 0:
                    continue
                if abs(values[-1] - values[0]).max() < SAME_ENDS * abs(values[1] - values[0]).max():
                    where, length = self._sources[0].name, self.spec.lengths[axis]
                    text = (
                        "%s: along the periodic %s the last grid points repeat the first; leave them out, or"
                    )
                    logger.warning(f"{text} the domain is a cell too long (%g)", where, name, length)
