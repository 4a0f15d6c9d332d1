"""The data of an evaluation: opened, with the parameters that an operator needs, read lead by lead."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.data.graphs.datasets import ParticleZarrDataset
from gust_torch.data.graphs.schema import MESH
from gust_torch.evaluation.schedule import Schedule
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, open_grid
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import Points


def open_source(path: str, operator: LatentOperator) -> FrameSource:
    """Frames of a grid file or particle store, checked against the operator's fields.

    Raises:
        ValueError: The data cannot be read, are of another kind or on another grid, or do not move.
    """
    spec = operator.spec
    is_store = Path(path).is_dir() or path.endswith(".zarr")
    if isinstance(spec, GraphSpec) and not spec.moving:
        raise ValueError(
            "the operator was trained on meshes, whose fields are steady; give one for particles"
        )
    if not is_store:
        return GridFrames(open_grid(path, spec))
    if not isinstance(spec, GraphSpec):
        raise ValueError(f"{path} is a store of graphs, the operator was trained on grids; give an .h5 file")
    if (Path(path) / MESH.group).is_dir():
        raise ValueError(f"{path} holds meshes, whose fields are steady; give particles")
    return GraphFrames(ParticleZarrDataset(path), spec)


def rollout_parameters(
    source: FrameSource, schedule: Schedule, operator: LatentOperator, where: str
) -> Tensor:
    """Physical parameters (rollouts, p) float32 in the operator's order; `where` names the data.

    Raises:
        ValueError: The data lack a parameter, or a value of it.
    """
    names = operator.parameter_names
    missing = [name for name in names if name not in source.parameters]
    if missing:
        raise ValueError(
            f"{where} has no parameter {', '.join(missing)}, which the operator was trained with; it has "
            f"{', '.join(source.parameters) or 'none'}: convert the data again, or train on data like these"
        )
    trajectories = schedule.trajectories
    values = np.array([source.parameters[name][trajectories] for name in names])
    values = values.reshape(len(names), len(trajectories)).T
    is_log = operator.condition_log[1:].cpu().numpy()
    for bad, why in (
        (~np.isfinite(values), "convert the data again"),
        ((values <= 0) & is_log, "the operator was trained on positive values and takes the logarithm"),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0].tolist()
            raise ValueError(
                f"{where}: parameter {names[column]} of trajectory {trajectories[row]} is "
                f"{values[row, column]:g}; {why}, or leave it out by --limit"
            )
    return torch.from_numpy(values).float()


def read_leads(
    source: FrameSource, autoencoder: LatentAutoencoder, samples: NDArray[np.int64]
) -> Iterator[tuple[Points, Tensor]]:
    """Yield the truth of rollouts with these `Schedule.samples`, at lead 0, 1, ..., the longest's last.

    Of the b rollouts that reach the lead: their points, samples in the order of the rollouts, and their
    latents (b, latent_len, latent_dim), on the autoencoder's device. Memory holds b frames; of particles b
    whole trajectories with their latents.
    """
    device = autoencoder.mean.device
    steps = source.samples_per_item
    whole = []
    if isinstance(source.spec, GraphSpec):
        for start in samples[:, 0].tolist():  # each by itself: all of its times make a batch
            batch = source.read([start // steps]).to(device)
            whole.append((autoencoder.points(batch), autoencoder.encode(batch)))
    for lead in range(int((samples[0] >= 0).sum())):
        own = samples[samples[:, lead] >= 0, lead].tolist()
        if whole:
            reached = [(*trajectory, sample % steps) for trajectory, sample in zip(whole, own, strict=False)]
            latents = torch.stack([latent[time] for _, latent, time in reached])
            yield _join([(points, time) for points, _, time in reached], steps), latents
        else:
            batch = source.read(own).to(device)
            yield autoencoder.points(batch), autoencoder.encode(batch)


def _join(trajectories: Sequence[tuple[Points, int]], steps: int) -> Points:
    """One time of each trajectory, which has the same particles at all of its times, behind one another."""
    coordinates, values = (
        [getattr(points, name).unflatten(0, (steps, -1))[time] for points, time in trajectories]
        for name in ("coordinates", "values")
    )
    number, device = len(values), values[0].device
    sizes = torch.tensor([len(one) for one in values], device=device)
    sample = torch.arange(number, device=device).repeat_interleave(sizes)
    return Points(torch.cat(coordinates), torch.cat(values), sample, number)
