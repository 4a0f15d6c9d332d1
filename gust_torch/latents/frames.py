"""Where an encoder's input comes from: frames of a grid file, or graphs of a Zarr store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import differences, spec_identity
from gust_torch.spec import FieldSpec

if TYPE_CHECKING:
    from gust_torch.data.graphs.datasets import GraphZarrDataset
    from gust_torch.models.latent_autoencoder import Batch


class FrameSource:
    """Items that an autoencoder encodes; one item is one sample or, where it moves, one for each time.

    Attributes:
        spec: Of the items.
        num_items: Items.
        samples_per_item: 1; of moving graphs their number of times.
        trajectories: (num_items * samples_per_item,) int64.
        times: The same, float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
    """

    spec: FieldSpec | GraphSpec
    num_items: int
    samples_per_item: int = 1
    trajectories: np.ndarray
    times: np.ndarray
    parameters: dict[str, np.ndarray]

    def read(self, items: Sequence[int]) -> Batch:
        """Raw physical values of items: (b, c, h, w), or a torch_geometric batch."""
        raise NotImplementedError

    def read_samples(self, samples: range) -> Batch:
        """`read` of the items that make up consecutive samples."""
        each = self.samples_per_item
        return self.read(range(samples.start // each, samples.stop // each))


def open_grid(
    path: str | Path, spec: FieldSpec | GraphSpec, *, n_steps: int = 1, stride: int = 1
) -> HDF5Dataset:
    """Open a grid file with the channels of a model, and check that the model was made for such fields.

    Raises:
        ValueError: The file cannot be read, or differs from the model in channels, grid or domain.
    """
    if isinstance(spec, GraphSpec):
        raise ValueError(f"{path} holds grids, the autoencoder was trained on graphs; give one of such data")
    dataset = HDF5Dataset(path, fields=spec.names, n_steps=n_steps, stride=stride)
    require_spec(path, spec, dataset.spec)
    return dataset


def require_spec(path: object, trained: FieldSpec | GraphSpec, found: FieldSpec | GraphSpec) -> None:
    """Refuse data whose fields, grid, boundaries or lengths are not those that a model was trained on."""
    if isinstance(trained, FieldSpec) and isinstance(found, FieldSpec):
        changed = trained.differences(found)
    else:
        changed = differences(spec_identity(trained), spec_identity(found))
    if changed:
        text = f"{path} does not fit the model, which was trained on {'; '.join(changed)}"
        raise ValueError(f"{text}; give data like those, or a model of such data")


class GridFrames(FrameSource):
    """Frames of a file in the common format."""

    def __init__(self, dataset: HDF5Dataset) -> None:
        """Wrap a dataset of single frames, not normalized."""
        self.dataset, self.spec, self.num_items = dataset, dataset.spec, len(dataset)
        self.trajectories, self.times = dataset.trajectories, dataset.times
        self.parameters = dataset.parameters

    def read(self, items: Sequence[int]) -> Batch:
        """Frames (b, c, h, w) float32."""
        return self.dataset.__getitems__(items).stacked


class GraphFrames(FrameSource):
    """Graphs of a Zarr store.

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
        self.dataset, self.spec, self.num_items = dataset, spec, len(dataset)
        self.samples_per_item = int(dataset[0].positions.shape[1]) if spec.moving else 1
        self.parameters = dataset.numbers()
        steps = self.parameters.pop("dt", np.ones(self.num_items))
        self.trajectories = np.repeat(np.arange(self.num_items), self.samples_per_item)
        self.times = np.outer(steps, np.arange(self.samples_per_item)).ravel()

    def read(self, items: Sequence[int]) -> Batch:
        """Return a batch of the items.

        Raises:
            ValueError: An item has another number of times than the first.
        """
        from torch_geometric.data import Batch as GraphBatch  # only graphs need it

        graphs = [self.dataset[int(item)] for item in items]
        for item, graph in zip(items, graphs, strict=True):
            count = graph.positions.shape[1] if "positions" in graph else 1
            if count != self.samples_per_item:
                name = f"{self.dataset.path}: sample {item} ({self.dataset.source(int(item))})"
                text = f"{name} has {count} times, sample 0 has {self.samples_per_item}"
                raise ValueError(f"{text}; put others into a store of their own")
        batch: Batch = GraphBatch.from_data_list(graphs)
        return batch
