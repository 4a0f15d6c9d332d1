"""From a fluid simulation to discrete tokens that keep the physics.

The public names are loaded on first use, so that importing the package costs nothing.
"""
# ruff: noqa: F401

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gust_torch.data.datamodule import FieldDataModule
    from gust_torch.data.graphs.datamodule import GraphDataModule
    from gust_torch.data.graphs.datasets import MeshZarrDataset, ParticleZarrDataset
    from gust_torch.data.graphs.poisson import PoissonField
    from gust_torch.data.hdf5_dataset import HDF5Dataset
    from gust_torch.latents.datamodule import LatentDataModule
    from gust_torch.models.lapped_vqvae import LappedVQVAE2d
    from gust_torch.models.latent_autoencoder import LatentAutoencoder
    from gust_torch.models.latent_operator import LatentOperator
    from gust_torch.models.vqvae import VQVAE2d
    from gust_torch.spec import FieldSpec
    from gust_torch.tasks.lapped_vqvae import LappedVQVAETask
    from gust_torch.tasks.latent_autoencoder import LatentAutoencoderTask
    from gust_torch.tasks.latent_operator import LatentOperatorTask
    from gust_torch.tasks.vqvae import VQVAETask
    from gust_torch.tokenizer.npz import load_tokenized_data
    from gust_torch.tokenizer.pretrained import load_pretrained
    from gust_torch.tokenizer.tokenizer import VQVAETokenizer

_PLACES = {
    "data.datamodule": ["FieldDataModule"],
    "data.graphs.datamodule": ["GraphDataModule"],
    "data.graphs.datasets": ["MeshZarrDataset", "ParticleZarrDataset"],
    "data.graphs.poisson": ["PoissonField"],
    "data.hdf5_dataset": ["HDF5Dataset"],
    "latents.datamodule": ["LatentDataModule"],
    "models.lapped_vqvae": ["LappedVQVAE2d"],
    "models.latent_autoencoder": ["LatentAutoencoder"],
    "models.latent_operator": ["LatentOperator"],
    "models.vqvae": ["VQVAE2d"],
    "spec": ["FieldSpec"],
    "tasks.lapped_vqvae": ["LappedVQVAETask"],
    "tasks.latent_autoencoder": ["LatentAutoencoderTask"],
    "tasks.latent_operator": ["LatentOperatorTask"],
    "tasks.vqvae": ["VQVAETask"],
    "tokenizer.npz": ["load_tokenized_data"],
    "tokenizer.pretrained": ["load_pretrained"],
    "tokenizer.tokenizer": ["VQVAETokenizer"],
}
_MODULES = {name: f"{__name__}.{place}" for place, names in _PLACES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
