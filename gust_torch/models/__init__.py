"""Plain torch modules: no Lightning, no files."""

from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.quantizer import MultiScaleQuantizer, QuantizerOutput
from gust_torch.models.vqvae import VQVAE2d, VQVAEOutput

__all__ = [
    "LatentAutoencoder",
    "LatentOperator",
    "MultiScaleQuantizer",
    "QuantizerOutput",
    "VQVAE2d",
    "VQVAEOutput",
]
