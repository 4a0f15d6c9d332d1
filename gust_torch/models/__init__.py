"""Plain torch modules: no Lightning, no files."""

from gust_torch.models.quantizer import MultiScaleQuantizer, QuantizerOutput
from gust_torch.models.vqvae import VQVAE2d, VQVAEOutput

__all__ = ["MultiScaleQuantizer", "QuantizerOutput", "VQVAE2d", "VQVAEOutput"]
