"""Meshes and particle sets of varying size in Zarr stores, as torch_geometric items and batches."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.data.graphs.datamodule import GraphDataModule
    from gust_torch.data.graphs.datasets import MeshZarrDataset, ParticleZarrDataset
    from gust_torch.data.graphs.groups import GroupsWriter
    from gust_torch.data.graphs.poisson import PoissonField
    from gust_torch.data.graphs.ragged import RaggedWriter

__all__ = [
    "GraphDataModule",
    "GroupsWriter",
    "MeshZarrDataset",
    "ParticleZarrDataset",
    "PoissonField",
    "RaggedWriter",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "GraphDataModule": "gust_torch.data.graphs.datamodule",
        "GroupsWriter": "gust_torch.data.graphs.groups",
        "MeshZarrDataset": "gust_torch.data.graphs.datasets",
        "ParticleZarrDataset": "gust_torch.data.graphs.datasets",
        "PoissonField": "gust_torch.data.graphs.poisson",
        "RaggedWriter": "gust_torch.data.graphs.ragged",
    },
)
