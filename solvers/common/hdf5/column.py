"""Growing datasets, written through h5py's low-level calls (a quarter of the time of the high-level ones)."""

import h5py
import numpy as np

from solvers.common.hdf5.filters import filter_names


class Column:
    """A dataset that grows along axis 0 by one row for each sample.

    Attributes:
        row: Shape of one row, () for scalars, (H, W) or (H, W, C) for frames.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        """Wrap an open dataset whose axis 0 is unlimited."""
        self.row: tuple[int, ...] = dataset.shape[1:]
        self._id = dataset.id
        self._dtype = dataset.dtype
        self._chunk: int = dataset.chunks[0]
        # Whole unfiltered chunks go to the file as they are, past HDF5's selections and copies.
        self._direct = dataset.chunks[1:] == self.row and not filter_names(dataset)

    def __len__(self) -> int:
        return int(self._id.shape[0])

    def write(self, start: int, values: np.ndarray) -> None:
        """Put rows at [start, start + n) of a dataset with at least `start` rows, and flush them to the file.

        Args:
            start: Index of the first row.
            values: (n, *row).
        """
        values = np.ascontiguousarray(values, self._dtype)
        stop = start + len(values)
        self._id.set_extent((stop, *self.row))
        first, last = self._whole_chunks(start, stop)
        self._select(start, values[: first - start], stop)
        origin = (0,) * len(self.row)
        for index in range(first, last, self._chunk):
            self._id.write_direct_chunk((index, *origin), values[index - start : index - start + self._chunk])
        self._select(last, values[last - start :], stop)
        self._id.flush()

    def _whole_chunks(self, start: int, stop: int) -> tuple[int, int]:
        """Rows [first, last) of [start, stop) that fill chunks; (stop, stop) where there are none."""
        if not self._direct:
            return stop, stop
        first, last = -(-start // self._chunk) * self._chunk, stop // self._chunk * self._chunk
        return (first, last) if first < last else (stop, stop)

    def _select(self, start: int, values: np.ndarray, stop: int) -> None:
        """Put rows at [start, ...) of a dataset of `stop` rows through HDF5's selections."""
        if len(values):
            target = h5py.h5s.create_simple((stop, *self.row))
            target.select_hyperslab((start, *(0,) * len(self.row)), values.shape)
            self._id.write(h5py.h5s.create_simple(values.shape), target, values)

    def truncate(self, stop: int) -> None:
        """Drop the rows from `stop` on.

        HDF5 overwrites dropped rows by the fill value before it shortens the dataset. Going back chunk by
        chunk keeps rows that a kill leaves in between at the end of the dataset.
        """
        while len(self) > stop:
            start_of_last_chunk = (len(self) - 1) // self._chunk * self._chunk
            self._id.set_extent((max(stop, start_of_last_chunk), *self.row))
            self._id.flush()
