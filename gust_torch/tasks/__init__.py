"""Lightning modules, their losses and logging."""

from gust_torch.tasks.latent_autoencoder import LatentAutoencoderTask
from gust_torch.tasks.latent_operator import LatentOperatorTask
from gust_torch.tasks.vqvae import VQVAETask

__all__ = ["LatentAutoencoderTask", "LatentOperatorTask", "VQVAETask"]
