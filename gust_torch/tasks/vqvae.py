"""Lightning task that trains the VQ-VAE."""

from typing import Any

import torch
from torch import nn

from gust_torch.metrics.bands import BAND_NAMES
from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.models.scales import scale_names
from gust_torch.models.token_model import TokenModel
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.model_task import ModelTask, num_training_steps, per_field
from gust_torch.tasks.validation import ValidationSums, perplexity

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

    model: TokenModel

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
        # Of the newest validation: inputs and reconstructions (b, c, h, w) of the first batch, and how often
        # each code is used in a frame, (K_k,) for each scale.
        self.examples: list[torch.Tensor] = []
        self.code_counts: list[torch.Tensor] = []
        self.validation: ValidationSums

    def build(self) -> TokenModel:
        """Return a new model for the data module's fields."""
        return VQVAE2d(self.data.spec, **self.architecture)

    def configure_model(self) -> None:
        """Build the model and what measures it; resumed runs take statistics from the checkpoint."""
        if hasattr(self, "model"):
            return
        self.model = self.build()
        if self.trainer.training:
            self.model.set_statistics(*self.data.statistics())
        self.spectral_loss = LogSpectrumLoss(ShellSpectrum(self.data.spec))
        if self.compile_networks:
            for part in (self.model.encoder, self.model.decoder):
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
        batch, count = self.true_part(batch, len(batch))
        output = self.model(batch)
        if batch_idx == 0:
            self.examples = [batch, output.reconstruction]
        loss = output.reconstruction_loss + output.quantizer_loss
        if self.spectral_weight > 0:
            loss = loss + self.spectral_weight * self.spectral_loss(output.reconstruction, batch)
        errors = vrmse(output.reconstruction, batch).mean(0)
        self.means.add({"val/loss": loss, **per_field("val/vrmse", errors, self.model.spec.names)}, count)
        self.validation.add(batch, output.reconstruction, output.indices, counts=count > 0)

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the pass."""
        super().on_validation_epoch_start()
        self.validation = ValidationSums(self.spectral_loss.spectrum, self.model.vocab_sizes)

    def metrics(self, means: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Add what the sums over all samples and processes say."""
        bands, self.code_counts = self.validation.reduce(self.device)
        for name, error in zip(BAND_NAMES, bands, strict=True):
            means[f"val/spectral_error_{name}"] = error
        for name, counts in zip(scale_names(self.model.scales), self.code_counts, strict=True):
            means[f"val/perplexity_ratio_{name}"] = perplexity(counts) / counts.numel()
        return means


class LogSpectrumLoss(nn.Module):
    """Mean squared log ratio of shell spectra, ⟨(ln Ê − ln E)²⟩ over samples, channels and whole shells.

    A squared error alone rewards leaving out what cannot be predicted, so small scales lose their power; this
    term asks for the right power at each scale whatever its phase. Shell 0, the mean, is left out.
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
