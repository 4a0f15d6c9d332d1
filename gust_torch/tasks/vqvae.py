"""Lightning task that trains the VQ-VAE."""

from typing import Any

import torch
from torch import nn

from gust_torch.metrics.bands import BAND_NAMES
from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.models.token_model import TokenModel
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.model_task import ModelTask, num_training_steps
from gust_torch.tasks.validation import ValidationSums

FLOOR = 1e-6
"""Share of a sample's total power below which shells count as empty."""


class VQVAETask(ModelTask):
    """Trains a `VQVAE2d` on the fields of the trainer's data module.

    Loss: normalized mean squared error + quantizer's loss + `spectral_weight` * log-spectrum loss. AdamW with
    a linear warm-up and a cosine to 1 % of `lr` at the end of the run.

    Args:
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        betas: AdamW's decay rates of the two moments.
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        spectral_weight: Weight of the log-spectrum loss; 0 switches it off.
        augment_shifts: Shift each training frame by a random number of cells along periodic axes.
        compile: Compile encoder and decoder with torch.compile.
        **architecture: The arguments of `VQVAE2d`.
    """

    def __init__(
        self,
        *,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 1000,
        spectral_weight: float = 0.0,
        augment_shifts: bool = False,
        compile: bool = False,
        **architecture: Any,
    ) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, betas=betas)
        self.save_hyperparameters()
        self.architecture = architecture
        self.spectral_weight = spectral_weight
        self.augment_shifts = augment_shifts
        self.compile_networks = compile
        self.model: TokenModel
        self.spectral_loss: LogSpectrumLoss
        self.validation: ValidationSums

    def configure_model(self) -> None:
        """Build the model for the data module's fields; resumed runs take statistics from the checkpoint."""
        if hasattr(self, "model"):
            return
        self.prepare(VQVAE2d(self.data.spec, **self.architecture))

    def prepare(self, model: TokenModel) -> None:
        """Give the new model its statistics, and build what measures it."""
        self.model = model
        if self.trainer.training:
            model.set_statistics(*self.data.statistics())
        spectrum = ShellSpectrum(self.data.spec)
        self.spectral_loss = LogSpectrumLoss(spectrum)
        self.validation = ValidationSums(spectrum, model.vocab_sizes)
        if self.compile_networks:
            for part in (model.encoder, model.decoder):
                if isinstance(part, nn.Module):
                    part.compile()

    def on_fit_start(self) -> None:
        """Shorten the first phases of short runs."""
        self.model.shorten_phases(num_training_steps(self.trainer))
        super().on_fit_start()

    def summary(self) -> str:
        """Tokens of a frame."""
        tokens = sum(h * w for h, w in self.model.scales)
        return f"{tokens} tokens a frame, {self.model.bits_per_pixel:.4f} bits per pixel"

    def next_command(self, checkpoint: str) -> str:
        """Export the tokens."""
        command = f"python -m gust_torch.tokenizer save --checkpoint {checkpoint}"
        return f"{command} --data_path FILE --output tokens.npz"

    def augment(self, batch: torch.Tensor) -> torch.Tensor:
        """Shift the frames of a batch (b, c, h, w), by other distances at each step and process."""
        if not self.augment_shifts:
            return batch
        return random_shifts(batch, self.model.spec.boundary, self.draws())

    def draws(self) -> torch.Generator:
        """Return the random numbers of this step and process."""
        seed = self.global_step * self.trainer.world_size + self.global_rank
        return torch.Generator().manual_seed(seed)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Loss of a batch of physical fields (b, c, h, w)."""
        batch = self.augment(batch)
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
        batch, count = self.true_part(batch)
        output = self.model(batch)
        loss = output.reconstruction_loss + output.quantizer_loss
        if self.spectral_weight > 0:
            loss = loss + self.spectral_weight * self.spectral_loss(output.reconstruction, batch)
        errors = vrmse(output.reconstruction, batch).mean(0)
        values = {"val/loss": loss, "val/vrmse": errors.mean()}
        names = self.model.spec.names
        if len(names) > 1:
            values |= {f"val/vrmse_{name}": error for name, error in zip(names, errors, strict=True)}
        self.means.add(values, count)
        self.validation.add(batch, output.reconstruction, output.indices, counts=count > 0)

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the pass."""
        super().on_validation_epoch_start()
        self.validation.reset()

    def on_validation_epoch_end(self) -> None:
        """Log what needs sums over all samples and processes."""
        super().on_validation_epoch_end()
        self.validation.reduce()
        for name, error in zip(BAND_NAMES, self.validation.band_errors(), strict=True):
            self.log(f"val/spectral_error_{name}", error, sync_dist=True)
        for (h, w), ratio in zip(self.model.scales, self.validation.perplexity_ratios(), strict=True):
            self.log(f"val/perplexity_ratio_{h}x{w}", ratio, sync_dist=True)


class LogSpectrumLoss(nn.Module):
    """Mean squared log ratio of shell spectra, ⟨(ln Ê − ln E)²⟩ over samples, channels and whole shells.

    A squared error alone rewards leaving out what cannot be predicted, so small scales lose their power; this
    term asks for the right power at each scale whatever its phase. Shell 0, the mean, is left out.

    Args:
        spectrum: Shell spectrum on the grid of the data.
    """

    def __init__(self, spectrum: ShellSpectrum) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.last = int((spectrum.k <= spectrum.k_max * (1 + 1e-6)).sum())

    def forward(self, x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Scalar loss of estimates against references, both (b, c, h, w)."""
        with torch.autocast(x.device.type, enabled=False):
            reference, estimate = self.spectrum(x.float()), self.spectrum(x_hat.float())
            floor = FLOOR * reference.sum(-1, keepdim=True)
            ratio = (estimate + floor).log() - (reference + floor).log()
            return ratio[..., 1 : self.last].square().mean()


def random_shifts(x: torch.Tensor, boundary: tuple[str, str], generator: torch.Generator) -> torch.Tensor:
    """Shift each sample by a random number of cells along its periodic axes.

    Args:
        x: Fields (b, c, h, w).
        boundary: Per axis "periodic" or "wall".
        generator: CPU generator, the only source of randomness.

    Returns:
        (b, c, h, w), out[i, :, p, q] = x[i, :, p + s_i mod h, q + t_i mod w].
    """
    b, _, h, w = x.shape
    places = []
    for n, kind in zip((h, w), boundary, strict=True):
        shifts = torch.randint(n, (b, 1), generator=generator) if kind == "periodic" else torch.zeros(b, 1)
        places.append((torch.arange(n) + shifts).remainder(n).long().to(x.device))
    rows, columns = places
    samples = torch.arange(b, device=x.device)[:, None, None]
    return x[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
