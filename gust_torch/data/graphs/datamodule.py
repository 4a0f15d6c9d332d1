"""Lightning data module over graph stores; which fields their items have, and the statistics of these."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gust_torch.data.graphs import require
from gust_torch.data.graphs.datasets import GraphZarrDataset, MeshZarrDataset, ParticleZarrDataset
from gust_torch.data.loader import BlockDataModule, Collate
from gust_torch.data.samples import MAX_SAMPLES, channel_statistics
from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import content_digest, evenly_spaced, spec_identity

if TYPE_CHECKING:
    from torch_geometric.data import Data

DATASETS = {"mesh": MeshZarrDataset, "particles": ParticleZarrDataset}
# Tensors that are no fields on the nodes, however many rows they have.
OTHERS = ("pos", "positions", "laplacian_data")
PREFIXES = ("edge_", "cell_")


@dataclass(frozen=True)
class GraphStatistics:
    """Over the nodes of many items: `mean`, `std` (c,), corners `lower`, `upper` (d,) of all positions."""

    mean: Tensor
    std: Tensor
    lower: Tensor
    upper: Tensor


def graph_spec(item: "Data", fields: list[str] | None = None) -> GraphSpec:
    """Spec of some node fields of an item; by default all that are floating-point.

    Items with `positions` are moving, and their fields are those with a time axis.
    """
    moving = "positions" in item
    lead = item.positions.shape[:2] if moving else (item.num_nodes,)
    found = {
        name: value.shape[len(lead) :].numel()
        for name, value in item.to_dict().items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape[: len(lead)] == lead
        and name not in OTHERS
        and not name.startswith(PREFIXES)
    }
    names = list(found) if fields is None else fields
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise ValueError(
            f"no node field {', '.join(missing) or 'at all'} in the items, which have "
            f"{', '.join(found) or 'none'}; name others, or give a transform that makes them (PoissonField)"
        )
    return GraphSpec(tuple(names), tuple(found[name] for name in names), int(item.pos.shape[1]), moving)


def graph_statistics(items: "Dataset[Data]", spec: GraphSpec) -> GraphStatistics:
    """Statistics over at most 256 evenly spaced items, each node and time counted once, in float64."""
    lower = torch.full((spec.num_dims,), torch.inf)
    upper = -lower

    def blocks() -> Iterator[np.ndarray]:
        for index in evenly_spaced(len(items), MAX_SAMPLES):  # type: ignore[arg-type]
            item = items[index]
            positions = (item.positions if spec.moving else item.pos).reshape(-1, spec.num_dims).float()
            torch.minimum(lower, positions.amin(0), out=lower)
            torch.maximum(upper, positions.amax(0), out=upper)
            values = [item[name].reshape(-1, n) for name, n in zip(spec.fields, spec.components, strict=True)]
            yield torch.cat(values, dim=1).T.numpy()

    mean, std = channel_statistics(blocks(), spec.names)
    return GraphStatistics(mean, std, lower, upper)


class GraphDataModule(BlockDataModule):
    """Batches of graphs (`torch_geometric.data.Batch`) from the stores of a conversion.

    Training samples are shuffled in blocks of neighbors, differently in each epoch; each rank has its share.
    """

    def __init__(
        self,
        train_path: str,
        val_path: str | None = None,
        test_path: str | None = None,
        kind: Literal["mesh", "particles"] = "mesh",
        group: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        block_size: int = 1,
        seed: int = 0,
        transform: Callable[[Any], Any] | None = None,  # items; jsonargparse would build a `Data`
        fields: list[str] | None = None,
        allow_changed: bool = False,
    ) -> None:
        """Remember the settings; stores are opened when first needed.

        Args:
            train_path: Store to train on, such as "data/pdebench/darcy2d_mesh_train.zarr", or a URL.
            val_path: Store that validates; none by default.
            test_path: Store for tests and predictions; none by default.
            kind: What the stores hold.
            group: Group of the samples; that of the kind by default.
            batch_size: Graphs in a batch, on each device.
            num_workers: Processes that load ahead; 0 loads in the training process.
            block_size: Neighboring samples that stay together when shuffling: above 1, a decoded chunk
                serves several samples, which pays for remote stores.
            seed: Of the shuffling.
            transform: Applied to each item.
            fields: Node fields that a model sees; all of the items by default.
            allow_changed: Continue a training on data that are not those of its checkpoint, and log what is
                different.

        Raises:
            ValueError: A number out of range, or an unknown kind.
        """
        super().__init__(batch_size, num_workers, block_size, seed, allow_changed)
        if kind not in DATASETS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(DATASETS)}")
        self.paths = {"train": train_path, "val": val_path, "test": test_path}
        self.kind, self.group = kind, group
        self.transform, self.fields = transform, fields
        self._datasets: dict[str, GraphZarrDataset] = {}

    def dataset(self, split: Literal["train", "val", "test"]) -> GraphZarrDataset:
        """Return the samples of a split; ValueError where it has no path or its store cannot be read."""
        path = self.paths[split]
        if path is None:
            raise ValueError(f"no {split} store: give {split}_path")
        if split not in self._datasets:
            self._datasets[split] = DATASETS[self.kind](path, self.group, transform=self.transform)
        return self._datasets[split]

    @cached_property
    def spec(self) -> GraphSpec:
        """Fields and dimensions of the items, those of the first training one."""
        return graph_spec(self.dataset("train")[0], self.fields)

    @cached_property
    def _statistics(self) -> GraphStatistics:
        return graph_statistics(self.dataset("train"), self.spec)

    def statistics(self) -> GraphStatistics:
        """Mean, standard deviation and bounding box of the training set."""
        return self._statistics

    def identity(self) -> dict[str, Any]:
        """Return what checkpoints hold of the data; see `gust_torch.identity`."""
        values: dict[str, Any] = {name: value.tolist() for name, value in vars(self.statistics()).items()}

        def values_of(item: Any) -> np.ndarray:
            return np.concatenate([np.asarray(item[field]).ravel() for field in self.spec.fields])

        for split in ("train", "val"):
            if self.paths[split] is not None:
                dataset = self.dataset(split)
                values[f"{split} samples"] = len(dataset)
                values[f"{split} content"] = content_digest(dataset, values_of)
        return {**spec_identity(self.spec), **values}

    def setup(self, stage: str) -> None:
        """Open the stores, so that bad ones stop a run before it starts."""
        splits: Any = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in splits:
            if split != "val" or self.paths["val"] is not None:
                self.dataset(split)

    def collate(self) -> Collate:
        """Batches of torch_geometric."""
        return require("torch_geometric.data").Batch.from_data_list

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training samples; this rank's share."""
        return self.shuffled(self.dataset("train"))

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return the validation set in order; none without val_path."""
        return [] if self.paths["val"] is None else self.ordered(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """The test set in order."""
        return self.ordered(self.dataset("test"))

    predict_dataloader = test_dataloader
