"""Streaming histogram of field values, and distances between two distributions of values."""

import math

import torch
from torch import Tensor

NUM_BINS = 16384
BINS_PER_SCALE = 256
COARSE_BINS_PER_SCALE = 16


class ValueHistogram:
    """Counts of reference and estimate values on common bins, in one pass and bounded memory.

    Each channel has its own grid of bins. The grid is centered on ``center``; bins start ``scale / 256`` wide
    and reach to ``center +- 32 scale``. When a value of either field lies outside, the bins of that channel
    are merged in pairs (twice the width, twice the reach) until the grid holds it: no value is ever clipped,
    and the counts do not depend on how the data were cut into batches.

    Args:
        center: ``(c,)`` middle of the grid in physical units, such as the training mean.
        scale: ``(c,)`` positive unit of the bin width, such as the training standard deviation.

    Attributes:
        counts: ``(2, c, num_bins)`` int64; index 0 is the reference, 1 the estimate.
        width: ``(c,)`` float64 present bin widths, on the CPU.
    """

    def __init__(self, center: Tensor, scale: Tensor) -> None:
        # Held in float32, like the fields, so that subtracting it is the same operation on every device.
        self.center = center.detach().to(torch.float32)
        self._initial_width = scale.detach().cpu().double() / BINS_PER_SCALE
        self.width = self._initial_width.clone()
        self.counts = torch.zeros(2, center.numel(), NUM_BINS, dtype=torch.int64, device=center.device)

    def update(self, reference: Tensor, estimate: Tensor) -> None:
        """Count the values of a batch of fields ``(b, c, h, w)``.

        Raises:
            ValueError: A value is NaN or infinite.
        """
        offsets = [(field - self.center[:, None, None]).float() for field in (reference, estimate)]
        reach = torch.stack([offset.abs().amax(dim=(0, 2, 3)) for offset in offsets]).cpu().double()
        for name, row in zip(("the data", "the reconstruction"), reach, strict=True):
            if not bool(row.isfinite().all()):
                raise ValueError(
                    f"{name} holds NaN or infinite values; leave those samples out with --sample_start/stop"
                )
        self._grow(reach.amax(0))

        width = self.width.float().to(self.center.device)[:, None, None]
        first_bin = NUM_BINS // 2 + NUM_BINS * torch.arange(self.center.numel(), device=self.center.device)
        for counts, offset in zip(self.counts, offsets, strict=True):
            index = (offset / width).floor_().to(torch.int64) + first_bin[:, None, None]
            counts += torch.bincount(index.flatten(), minlength=counts.numel()).view_as(counts)

    def _grow(self, reach: Tensor) -> None:
        """Merge pairs of bins of each channel until the grid holds values ``reach`` away from its center."""
        for channel, distance in enumerate(reach.tolist()):
            # One bin to spare: the bin of a value is computed in float32 and may round up to the grid's end.
            while distance >= (NUM_BINS // 2 - 1) * float(self.width[channel]):
                pairs = self.counts[:, channel].view(2, NUM_BINS // 2, 2).sum(-1)
                self.counts[:, channel] = 0
                self.counts[:, channel, NUM_BINS // 4 : 3 * NUM_BINS // 4] = pairs
                self.width[channel] *= 2

    def edges(self, channel: int) -> Tensor:
        """Bin edges ``(num_bins + 1,)`` float64 of one channel, in physical units, on the CPU."""
        steps = torch.arange(-(NUM_BINS // 2), NUM_BINS // 2 + 1, dtype=torch.float64)
        return float(self.center[channel]) + steps * self.width[channel]

    def coarse(self, channel: int) -> tuple[Tensor, Tensor]:
        """Return counts ``(2, n)`` and edges ``(n + 1,)`` on bins about ``scale / 16`` wide.

        Divergences depend on the bin width: this one is fixed by the scale, not by the data's extremes, and
        holds enough values per bin not to measure sampling noise. A grid that has grown past it is returned
        as it is. Both are on the CPU, and cut to where there are counts.
        """
        grown = round(math.log2(float(self.width[channel] / self._initial_width[channel])))
        merged = max((BINS_PER_SCALE // COARSE_BINS_PER_SCALE) >> grown, 1)
        counts = self.counts[:, channel].cpu().view(2, -1, merged).sum(-1)
        used = counts.sum(0).nonzero().flatten()
        first, last = int(used[0]), int(used[-1]) + 1
        return counts[:, first:last], self.edges(channel)[::merged][first : last + 1]

    def distances(self, channel: int) -> dict[str, float]:
        """Distances between the two distributions of one channel, with the widths of their bins.

        Jensen-Shannon divergence (nats) and total variation are those of the coarse bins. Wasserstein-1, in
        the field's units, is that of the fine ones, whose width bounds its error.
        """
        coarse, edges = self.coarse(channel)
        reference, estimate = self.counts[:, channel].cpu()
        width = float(self.width[channel])
        return {
            "js_divergence": float(js_divergence(*coarse)),
            "tv_distance": float(total_variation(*coarse)),
            "histogram_bin_width": float(edges[1] - edges[0]),
            "wasserstein1": float(wasserstein1(reference, estimate, width)),
            "wasserstein1_bin_width": width,
        }


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats, 0 (equal) to ln 2 (disjoint) (Lin 1991).

    Args:
        p: ``(..., n)`` non-negative counts or weights, normalized here.
        q: The other distribution on the same bins.

    Returns:
        ``(...)`` float64.
    """
    p, q = _normalized(p), _normalized(q)
    middle = 0.5 * (p + q)
    # Empty bins: 0 log 0 = 0 exactly, no smoothing constant.
    log_middle = torch.where(middle > 0, middle, 1.0).log()
    divergence = torch.xlogy(p, p) + torch.xlogy(q, q) - (p + q) * log_middle
    return (0.5 * divergence.sum(-1)).clamp_min(0.0)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Total variation distance ``sum |p - q| / 2``, 0 (equal) to 1 (disjoint); see `js_divergence`."""
    return 0.5 * (_normalized(p) - _normalized(q)).abs().sum(-1)


def wasserstein1(p: Tensor, q: Tensor, width: Tensor | float) -> Tensor:
    """Wasserstein-1 (earth mover's) distance, the area between the two cumulative distributions.

    Exact for the binned distributions; of the values that were binned it is off by less than ``width``, since
    no value lies further than half a bin from its bin's middle.

    Args:
        p: ``(..., n)`` non-negative counts or weights on equal bins.
        q: The other distribution on the same bins.
        width: Bin width, a number or ``(...)``.

    Returns:
        ``(...)`` float64, in the field's units.
    """
    return (_normalized(p) - _normalized(q)).cumsum(-1).abs().sum(-1) * width


def _normalized(counts: Tensor) -> Tensor:
    """Weights that sum to 1 over the last axis, float64."""
    return counts.double() / counts.sum(-1, keepdim=True, dtype=torch.float64)
