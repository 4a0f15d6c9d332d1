"""Loss terms beside the squared error."""

import torch
from torch import nn

from gust_torch.metrics.spectra import ShellSpectrum

FLOOR = 1e-6
"""Share of a sample's total power below which shells count as empty."""


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
