"""From a fluid simulation to discrete tokens that keep the physics.

The public names are loaded on first use, so that importing the package costs nothing.
"""

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
    from gust_torch.tokenizer.tokenizer import VQVAETokenizer

__all__ = [
    "FieldDataModule",
    "FieldSpec",
    "GraphDataModule",
    "HDF5Dataset",
    "LappedVQVAE2d",
    "LappedVQVAETask",
    "LatentAutoencoder",
    "LatentAutoencoderTask",
    "LatentDataModule",
    "LatentOperator",
    "LatentOperatorTask",
    "MeshZarrDataset",
    "ParticleZarrDataset",
    "PoissonField",
    "VQVAE2d",
    "VQVAETask",
    "VQVAETokenizer",
    "load_tokenized_data",
]

_MODULES = {
    "FieldDataModule": "gust_torch.data.datamodule",
    "FieldSpec": "gust_torch.spec",
    "GraphDataModule": "gust_torch.data.graphs.datamodule",
    "HDF5Dataset": "gust_torch.data.hdf5_dataset",
    "LappedVQVAE2d": "gust_torch.models.lapped_vqvae",
    "LappedVQVAETask": "gust_torch.tasks.lapped_vqvae",
    "LatentAutoencoder": "gust_torch.models.latent_autoencoder",
    "LatentAutoencoderTask": "gust_torch.tasks.latent_autoencoder",
    "LatentDataModule": "gust_torch.latents.datamodule",
    "LatentOperator": "gust_torch.models.latent_operator",
    "LatentOperatorTask": "gust_torch.tasks.latent_operator",
    "MeshZarrDataset": "gust_torch.data.graphs.datasets",
    "ParticleZarrDataset": "gust_torch.data.graphs.datasets",
    "PoissonField": "gust_torch.data.graphs.poisson",
    "VQVAE2d": "gust_torch.models.vqvae",
    "VQVAETask": "gust_torch.tasks.vqvae",
    "VQVAETokenizer": "gust_torch.tokenizer.tokenizer",
    "load_tokenized_data": "gust_torch.tokenizer.npz",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
