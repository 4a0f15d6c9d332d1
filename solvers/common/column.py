"""Growing datasets, written through h5py's low-level calls (a quarter of the time of the high-level ones)."""

import h5py
import numpy as np

from solvers.common.filters import filter_names


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
        # A row that is a whole unfiltered chunk goes to the file as it is, past HDF5's selections and copies.
        self._direct = dataset.chunks == (1, *self.row) and not filter_names(dataset)

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
        origin = (0,) * len(self.row)
        if self._direct:
            for index, row in enumerate(values, start):
                self._id.write_direct_chunk((index, *origin), row)
        else:
            target = h5py.h5s.create_simple((stop, *self.row))
            target.select_hyperslab((start, *origin), values.shape)
            self._id.write(h5py.h5s.create_simple(values.shape), target, values)
        self._id.flush()

    def truncate(self, stop: int) -> None:
        """Drop the rows from `stop` on."""
        if len(self) > stop:
            self._id.set_extent((stop, *self.row))
            self._id.flush()
