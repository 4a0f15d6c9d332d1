"""Lightning modules, their losses and logging."""

from gust_torch.tasks.vqvae import VQVAETask

__all__ = ["VQVAETask"]
