"""Where an encoder's input comes from: frames of a grid file, or graphs of a Zarr store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.spec import FieldSpec

if TYPE_CHECKING:
    from gust_torch.data.graphs.datasets import GraphZarrDataset
    from gust_torch.models.latent_autoencoder import Batch

TIME_STEP = "dt"


class FrameSource(Protocol):
    """Items that an autoencoder encodes; one item is one sample or, where it moves, one for each time.

    Attributes:
        spec: Of the items.
        num_items: Items.
        samples_per_item: 1; of moving graphs their number of times.
        trajectories: (num_samples,) int64.
        times: (num_samples,) float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
    """

    spec: FieldSpec | GraphSpec
    num_items: int
    samples_per_item: int
    trajectories: np.ndarray
    times: np.ndarray
    parameters: dict[str, np.ndarray]

    @property
    def num_samples(self) -> int:
        """num_items * samples_per_item."""
        ...

    def read(self, items: Sequence[int]) -> Batch:
        """Raw physical values of items: (b, c, h, w), or a torch_geometric batch."""
        ...


def open_grid(
    path: str | Path, spec: FieldSpec | GraphSpec, *, n_steps: int = 1, stride: int = 1
) -> HDF5Dataset:
    """Open a grid file with the channels of a model, and check that the model was made for such fields.

    Raises:
        ValueError: The file cannot be read, or differs from the model in channels, grid or domain.
    """
    if isinstance(spec, GraphSpec):
        raise ValueError(f"{path} holds grids, the autoencoder was trained on graphs; give one trained on it")
    dataset = HDF5Dataset(path, fields=spec.names, n_steps=n_steps, stride=stride)
    if differences := spec.differences(dataset.spec):
        raise ValueError(
            f"{path} does not fit the autoencoder: expected {'; '.join(differences)}; choose data like those "
            "of its training, or train one on these"
        )
    return dataset


class GridFrames:
    """Frames of a file in the common format; see `FrameSource`."""

    samples_per_item = 1

    def __init__(self, dataset: HDF5Dataset) -> None:
        """Wrap a dataset of single frames, not normalized."""
        assert dataset.n_steps == 1
        assert not dataset.normalized
        self.dataset = dataset
        self.spec: FieldSpec | GraphSpec = dataset.spec
        self.num_items = self.num_samples = len(dataset)
        self.trajectories, self.times = dataset.trajectories, dataset.times
        self.parameters = dataset.parameters

    def read(self, items: Sequence[int]) -> Batch:
        """Frames (b, c, h, w) float32; the memory is used again once nobody holds the tensor."""
        frames = self.dataset.__getitems__(items)
        return frames.stacked


class GraphFrames:
    """Graphs of a Zarr store; see `FrameSource`.

    Each graph is a trajectory. A moving one has a sample for each of its times, `dt` apart where the store
    has the number, else 1; others have one sample at time 0. All other numbers of a graph are parameters.
    """

    def __init__(self, dataset: GraphZarrDataset, spec: GraphSpec) -> None:
        """Wrap a dataset, whose transform makes the fields of the spec where the store lacks them.

        Raises:
            ValueError: The dataset is empty or damaged.
        """
        if not len(dataset):
            raise ValueError(f"{dataset.path} has no samples; convert the data again")
        self.dataset = dataset
        self.spec: FieldSpec | GraphSpec = spec
        self.num_items = len(dataset)
        self.samples_per_item = int(dataset[0].positions.shape[1]) if spec.moving else 1
        numbers = dataset.numbers()
        steps = numbers.pop(TIME_STEP, np.ones(self.num_items))
        self.parameters = numbers
        self.trajectories = np.repeat(np.arange(self.num_items), self.samples_per_item)
        self.times = np.outer(steps, np.arange(self.samples_per_item)).ravel()

    @property
    def num_samples(self) -> int:
        """num_items * samples_per_item."""
        return self.num_items * self.samples_per_item

    def read(self, items: Sequence[int]) -> Batch:
        """Return a batch of the items.

        Raises:
            ValueError: An item has another number of times than the first.
        """
        from torch_geometric.data import Batch as GraphBatch  # only graphs need it

        graphs = [self.dataset[int(item)] for item in items]
        if isinstance(self.spec, GraphSpec) and self.spec.moving:
            for item, graph in zip(items, graphs, strict=True):
                if graph.positions.shape[1] != self.samples_per_item:
                    raise ValueError(
                        f"{self.dataset.path}: sample {item} ({self.dataset.source(int(item))}) has "
                        f"{graph.positions.shape[1]} times, sample 0 has {self.samples_per_item}; "
                        "put graphs of other durations into a store of their own"
                    )
        batch: Batch = GraphBatch.from_data_list(graphs)
        return batch
