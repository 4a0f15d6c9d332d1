"""Lightning task that trains the VQ-VAE."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.spectra import BAND_NAMES, ShellSpectrum
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.augment import random_shifts
from gust_torch.tasks.losses import LogSpectrumLoss
from gust_torch.tasks.model_task import ModelTask
from gust_torch.tasks.schedule import num_training_steps
from gust_torch.tasks.validation import ValidationSums

ARCHITECTURE = tuple(inspect.signature(VQVAE2d).parameters)[1:]
"""The task's arguments that are the model's; a test holds their defaults equal."""
LARGEST_AUTOENCODER_SHARE = 0.1
"""Quantization begins after at most this share of a run, however short."""


class VQVAETask(ModelTask):
    """Trains a `VQVAE2d` on the fields of the trainer's data module.

    Loss: normalized mean squared error + quantizer's loss + `spectral_weight` * log-spectrum loss. AdamW with
    a linear warm-up and a cosine to 1 % of `lr` at the end of the run.

    Args:
        base_channels: Channels of the first stage, multiplied by `channel_mult` at each stage.
        channel_mult: Channel multipliers, one per stage; the grid is halved between stages.
        patch_size: Cells along each side of the patches that the first stage takes in, a power of two.
        num_res_blocks: Residual blocks per stage, or one number for each stage, finest grid first.
        codebook_dim: Latent channels, which is the code dimension.
        vocab_size: Codebook size of the finest scale (halved at each coarser one, not below 64), or one size
            per scale.
        scales: Token grids [h, w], coarse to fine; the last must be the latent grid.
        use_attention: Self-attention at the bottleneck.
        attention_heads: Heads of that attention.
        use_norm: GroupNorm in the residual blocks.
        phi_ratio: Weight of the convolution that refines each scale's upsampled codes.
        commitment_weight: Weight of the pull of the encoder towards its codes.
        decay: Moving-average decay of the codebooks.
        autoencoder_steps: Steps without quantization at the start, at most a tenth of the run.
        replace_every: Steps between replacements of unused codes.
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        betas: AdamW's decay rates of the two moments.
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        spectral_weight: Weight of the log-spectrum loss; 0 switches it off.
        augment_shifts: Shift each training frame by a random number of cells along periodic axes.
        compile: Compile encoder and decoder with torch.compile.
    """

    def __init__(
        self,
        *,
        base_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        patch_size: int = 2,
        num_res_blocks: int | Sequence[int] = 2,
        codebook_dim: int = 64,
        vocab_size: int | Sequence[int] = 512,
        scales: Sequence[Sequence[int]] = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16)),
        use_attention: bool = True,
        attention_heads: int = 8,
        use_norm: bool = True,
        phi_ratio: float = 0.5,
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        autoencoder_steps: int = 100,
        replace_every: int = 50,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 1000,
        spectral_weight: float = 0.0,
        augment_shifts: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, betas=betas)
        self.save_hyperparameters()
        self.spectral_weight = spectral_weight
        self.augment_shifts = augment_shifts
        self.compile_networks = compile
        self.model: VQVAE2d
        self.spectral_loss: LogSpectrumLoss
        self.validation: ValidationSums

    def configure_model(self) -> None:
        """Build the model for the data module's fields; resumed runs take statistics from the checkpoint."""
        if hasattr(self, "model"):
            return
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.model = VQVAE2d(datamodule.spec, **{name: self.hparams[name] for name in ARCHITECTURE})
        if self.trainer.training:
            self.model.set_statistics(*datamodule.statistics())
        spectrum = ShellSpectrum(datamodule.spec)
        self.spectral_loss = LogSpectrumLoss(spectrum)
        self.validation = ValidationSums(spectrum, self.model.vocab_sizes)
        if self.compile_networks:
            self.model.encoder.compile()
            self.model.decoder.compile()

    def on_fit_start(self) -> None:
        """Shorten the plain autoencoder phase of short runs."""
        steps = int(LARGEST_AUTOENCODER_SHARE * num_training_steps(self.trainer))
        quantizer = self.model.quantizer
        quantizer.autoencoder_steps = min(quantizer.autoencoder_steps, steps)
        super().on_fit_start()

    def summary(self) -> str:
        """Tokens of a frame."""
        tokens = sum(h * w for h, w in self.model.scales)
        return f"{tokens} tokens a frame, {self.model.bits_per_pixel:.4f} bits per pixel"

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Loss of a batch of physical fields (b, c, h, w)."""
        if self.augment_shifts:
            seed = self.global_step * self.trainer.world_size + self.global_rank
            batch = random_shifts(batch, self.model.spec.boundary, torch.Generator().manual_seed(seed))
        output = self.model(batch)
        loss = output.reconstruction_loss + output.quantizer_loss
        self.log("train/reconstruction", output.reconstruction_loss)
        self.log("train/quantizer", output.quantizer_loss)
        if self.spectral_weight > 0:
            spectral = self.spectral_loss(output.reconstruction, batch)
            self.log("train/spectral", spectral)
            loss = loss + self.spectral_weight * spectral
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        """Collect errors, spectra and code counts of a batch (b, c, h, w)."""
        output = self.model(batch)
        loss = output.reconstruction_loss + output.quantizer_loss
        if self.spectral_weight > 0:
            loss = loss + self.spectral_weight * self.spectral_loss(output.reconstruction, batch)
        errors = vrmse(output.reconstruction, batch)
        size = batch.shape[0]
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=size)
        self.log("val/vrmse", errors.mean(), on_epoch=True, sync_dist=True, batch_size=size, prog_bar=True)
        if len(self.model.spec.names) > 1:
            for name, error in zip(self.model.spec.names, errors.mean(0), strict=True):
                self.log(f"val/vrmse_{name}", error, on_epoch=True, sync_dist=True, batch_size=size)
        self.validation.add(batch, output.reconstruction, output.indices)

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the pass."""
        self.validation.reset()

    def on_validation_epoch_end(self) -> None:
        """Log what needs sums over all samples and processes."""
        self.validation.reduce()
        for name, error in zip(BAND_NAMES, self.validation.band_errors(), strict=True):
            self.log(f"val/spectral_error_{name}", error, sync_dist=True)
        for (h, w), ratio in zip(self.model.scales, self.validation.perplexity_ratios(), strict=True):
            self.log(f"val/perplexity_ratio_{h}x{w}", ratio, sync_dist=True)
