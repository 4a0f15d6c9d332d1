"""From a fluid simulation to discrete tokens that keep the physics.

The public names are loaded on first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.data.datamodule import FieldDataModule
    from gust_torch.data.graphs.datamodule import GraphDataModule
    from gust_torch.data.graphs.datasets import MeshZarrDataset, ParticleZarrDataset
    from gust_torch.data.hdf5_dataset import HDF5Dataset
    from gust_torch.models.latent_autoencoder import LatentAutoencoder
    from gust_torch.models.latent_operator import LatentOperator
    from gust_torch.models.vqvae import VQVAE2d
    from gust_torch.spec import FieldSpec
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
    "LatentAutoencoder",
    "LatentAutoencoderTask",
    "LatentOperator",
    "LatentOperatorTask",
    "MeshZarrDataset",
    "ParticleZarrDataset",
    "VQVAE2d",
    "VQVAETask",
    "VQVAETokenizer",
    "load_tokenized_data",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "FieldDataModule": "gust_torch.data",
        "FieldSpec": "gust_torch.spec",
        "GraphDataModule": "gust_torch.data.graphs",
        "HDF5Dataset": "gust_torch.data",
        "LatentAutoencoder": "gust_torch.models",
        "LatentAutoencoderTask": "gust_torch.tasks",
        "LatentOperator": "gust_torch.models",
        "LatentOperatorTask": "gust_torch.tasks",
        "MeshZarrDataset": "gust_torch.data.graphs",
        "ParticleZarrDataset": "gust_torch.data.graphs",
        "VQVAE2d": "gust_torch.models",
        "VQVAETask": "gust_torch.tasks",
        "VQVAETokenizer": "gust_torch.tokenizer",
        "load_tokenized_data": "gust_torch.tokenizer",
    },
)
