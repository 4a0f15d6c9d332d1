"""The true fields and their latents along trajectories, lead by lead, of grids and of moving particles."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gust_torch.evaluation.schedule import Rollout
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.points import Points


class Reference(Protocol):
    """Reads what rollouts are compared with."""

    def frames(self, rollouts: Sequence[Rollout]) -> Iterator[tuple[Points, Tensor]]:
        """Lead 0, 1, ... up to the longest rollout's last.

        Args:
            rollouts: The longest first, so that those that reach a lead are the first ones.

        Yields:
            Of the b rollouts that reach the lead: their points, samples in the order of the rollouts, and
            their latents (b, latent_len, latent_dim).
        """
        ...


class GridReference:
    """Grids: frame by frame, so that memory holds b frames at a time.

    Args:
        source: The frames.
        autoencoder: Encodes them; where it is, the frames go.
    """

    def __init__(self, source: FrameSource, autoencoder: LatentAutoencoder) -> None:
        self._source, self._autoencoder = source, autoencoder

    def frames(self, rollouts: Sequence[Rollout]) -> Iterator[tuple[Points, Tensor]]:
        """See `Reference`."""
        device = self._autoencoder.mean.device
        for lead in range(rollouts[0].num_leads + 1):
            samples = [int(rollout.samples[lead]) for rollout in rollouts if rollout.num_leads >= lead]
            batch = self._source.read(samples).to(device)
            yield self._autoencoder.points(batch), self._autoencoder.encode(batch)


class ParticleReference:
    """Moving particles: an item is a whole trajectory, which memory holds with its latents, b of them.

    Each trajectory is encoded by itself: all of its times make a batch.

    Args:
        source: The trajectories.
        autoencoder: Encodes them; where it is, they go.
    """

    def __init__(self, source: FrameSource, autoencoder: LatentAutoencoder) -> None:
        self._source, self._autoencoder = source, autoencoder

    def frames(self, rollouts: Sequence[Rollout]) -> Iterator[tuple[Points, Tensor]]:
        """See `Reference`."""
        device = self._autoencoder.mean.device
        steps = self._source.samples_per_item
        whole, latents = [], []
        for rollout in rollouts:
            batch = self._source.read([int(rollout.samples[0]) // steps]).to(device)
            whole.append(self._autoencoder.points(batch))
            latents.append(self._autoencoder.encode(batch))
        for lead in range(rollouts[0].num_leads + 1):
            reached = [i for i, rollout in enumerate(rollouts) if rollout.num_leads >= lead]
            step = {i: int(rollouts[i].samples[lead]) % steps for i in reached}
            parts = [_at_step(whole[i], step[i]) for i in reached]
            yield join_points(parts), torch.stack([latents[i][step[i]] for i in reached])


def open_reference(source: FrameSource, autoencoder: LatentAutoencoder) -> Reference:
    """Return the reference for a source's kind of data.

    Raises:
        ValueError: The data do not move.
    """
    if not isinstance(source.spec, GraphSpec):
        return GridReference(source, autoencoder)
    if not source.spec.moving:
        raise ValueError("meshes are steady, so there is nothing to roll out; give particles or grids")
    return ParticleReference(source, autoencoder)


def join_points(parts: Sequence[Points]) -> Points:
    """One sample a part, behind one another."""
    sizes = torch.tensor([len(part.sample) for part in parts])
    return Points(
        coordinates=torch.cat([part.coordinates for part in parts]),
        values=torch.cat([part.values for part in parts]),
        sample=torch.arange(len(parts)).repeat_interleave(sizes).to(parts[0].values.device),
        num_samples=len(parts),
    )


def _at_step(points: Points, step: int) -> Points:
    """One sample of several."""
    chosen = points.sample == step
    return Points(points.coordinates[chosen], points.values[chosen], points.sample[chosen], 1)
