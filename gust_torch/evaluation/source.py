"""The data of an evaluation: opened, with the parameters that an operator needs, read lead by lead."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gust_torch.data.graphs.datasets import ParticleZarrDataset
from gust_torch.data.graphs.schema import MESH
from gust_torch.evaluation.schedule import Rollout, Schedule
from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import content_digest, warn_of_scale
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, open_grid
from gust_torch.latents.key import data_identity
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import Points

Reference = Callable[[Sequence[Rollout]], Iterator[tuple[Points, Tensor]]]
"""Gives what rollouts, the longest first, are compared with, at lead 0, 1, ... up to the longest one's last.

Of the b rollouts that reach the lead: their points, samples in the order of the rollouts, and their latents
(b, latent_len, latent_dim), where the autoencoder is, which encodes them."""


def open_source(path: str, operator: LatentOperator) -> FrameSource:
    """Frames of a grid file or particle store, checked against the operator's fields.

    Raises:
        ValueError: The data cannot be read, are of another kind or on another grid, or do not move.
    """
    spec = operator.spec
    if isinstance(spec, GraphSpec) and not spec.moving:
        raise ValueError(
            "the operator was trained on meshes, whose fields are steady: there is nothing to roll out; give "
            "the checkpoint of one for grids or particles"
        )
    if not (Path(path).is_dir() or path.endswith(".zarr")):
        return GridFrames(open_grid(path, spec))
    if not isinstance(spec, GraphSpec):
        raise ValueError(f"{path} is a store of graphs, the operator was trained on grids; give an .h5 file")
    if (Path(path) / MESH.group).is_dir():
        raise ValueError(
            f"{path} holds meshes, whose fields are steady: there is nothing to roll out; give particles"
        )
    return GraphFrames(ParticleZarrDataset(path), spec)


def rollout_parameters(
    source: FrameSource, schedule: Schedule, operator: LatentOperator, where: str
) -> Tensor:
    """Physical parameters (rollouts, p) float32 in the operator's order.

    Args:
        source: The data.
        schedule: Whose trajectories.
        operator: Names the parameters.
        where: The data, for messages.

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
    trajectories = [rollout.trajectory for rollout in schedule.rollouts]
    values = np.array([source.parameters[name][trajectories] for name in names]).T
    values = values.reshape(len(trajectories), len(names))
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"{where}: parameter {names[column]} of trajectory {trajectories[row]} is {values[row, column]}; "
            "convert the data again, or leave them out by --limit"
        )
    is_log = operator.condition_log[1:].cpu().numpy()
    if (values[:, is_log] <= 0).any():
        row, column = np.argwhere((values <= 0) & is_log)[0].tolist()
        raise ValueError(
            f"{where}: parameter {names[column]} of trajectory {trajectories[row]} is "
            f"{values[row, column]:g}, the operator was trained on positive values over more than a decade "
            "and takes the logarithm; leave it out by --limit"
        )
    return torch.from_numpy(values).float()


def extrapolation_notes(
    schedule: Schedule, parameters: Tensor, source: FrameSource, operator: LatentOperator
) -> list[str]:
    """Return a line for each way in which the data lie beyond those that the operator was trained with.

    Args:
        schedule: What is rolled out.
        parameters: (rollouts, p) in the operator's order.
        source: The data.
        operator: Knows the statistics of its training.
    """
    low, high = operator.time_step_range.tolist()
    lines = []
    steps = np.concatenate([np.diff(rollout.times) for rollout in schedule.rollouts])
    if steps.min() < 0.999 * low or steps.max() > 1.001 * high:
        lines.append(
            f"time steps of {steps.min():.4g} to {steps.max():.4g} lie beyond those that the operator was "
            f"trained with, {low:.4g} to {high:.4g}"
        )
    lower, upper = operator.parameter_range.cpu().double().numpy()
    slack = 1e-3 * np.maximum(abs(lower), abs(upper))
    own = parameters.cpu().double().numpy()
    beyond = (own < lower - slack) | (own > upper + slack)
    lines += [
        f"parameter {name} of {own[beyond[:, i], i].min():.4g} to {own[beyond[:, i], i].max():.4g} lies "
        f"beyond those that the operator was trained with, {lower[i]:.4g} to {upper[i]:.4g} "
        f"({beyond[:, i].sum()} of {len(own)} trajectories)"
        for i, name in enumerate(operator.parameter_names)
        if beyond[:, i].any()
    ]
    return lines + _unit_notes(schedule, source, operator)


def _unit_notes(schedule: Schedule, source: FrameSource, operator: LatentOperator) -> list[str]:
    """Compare the deviation of the first frame of some trajectories with that of the training."""
    autoencoder = operator.autoencoder
    device = autoencoder.mean.device
    starts = [int(rollout.samples[0]) // source.samples_per_item for rollout in schedule.rollouts]
    some = sorted({starts[i] for i in np.linspace(0, len(starts) - 1, 8).round().astype(int)})
    values = torch.cat([autoencoder.points(source.read([item]).to(device)).values for item in some]).double()
    found = values.std(0, correction=0).cpu().numpy()
    names = operator.spec.names
    other = warn_of_scale(autoencoder.std.flatten().cpu().numpy(), found, names, source="the data")
    return [
        f"{name} has the standard deviation {found[names.index(name)]:.3g}, "
        f"{float(autoencoder.std.flatten()[names.index(name)]):.3g} in training: other values, or other units"
        for name in other
    ]


def known_data_notes(path: str, source: FrameSource, trained_on: Mapping[str, object]) -> list[str]:
    """Return a line where the data are those that the operator was trained or selected on.

    Args:
        path: The data.
        source: The same, opened.
        trained_on: What the checkpoint holds of its data; see `gust_torch.identity`.
    """
    entries = {"train": "trained on", "val": "chosen by"}
    found: dict[str, str] = {}
    if isinstance(source, GridFrames) and any(f"{split} content" in trained_on for split in entries):
        windows = {name: int(str(trained_on.get(name, 1))) for name in ("n_steps", "stride")}
        found["content"] = content_digest(open_grid(path, source.spec, **windows))
    if Path(path).exists() and any(f"{split} data" in trained_on for split in entries):
        found["data"] = data_identity(path).sha256
    return [
        f"{path} is the very file that the operator was {use}: errors of other data will be larger"
        for split, use in entries.items()
        if any(trained_on.get(f"{split} {entry}") == digest for entry, digest in found.items())
    ]


def open_reference(source: FrameSource, autoencoder: LatentAutoencoder) -> Reference:
    """Return the reader of a source's kind of data.

    Raises:
        ValueError: The data do not move.
    """
    if not isinstance(source.spec, GraphSpec):
        return partial(grid_frames, source, autoencoder)
    if not source.spec.moving:
        raise ValueError("meshes are steady, so there is nothing to roll out; give particles or grids")
    return partial(particle_frames, source, autoencoder)


def grid_frames(
    source: FrameSource, autoencoder: LatentAutoencoder, rollouts: Sequence[Rollout]
) -> Iterator[tuple[Points, Tensor]]:
    """Read grids frame by frame, so that memory holds b frames at a time; see `Reference`."""
    device = autoencoder.mean.device
    for lead in range(rollouts[0].num_leads + 1):
        samples = [int(rollout.samples[lead]) for rollout in rollouts if rollout.num_leads >= lead]
        batch = source.read(samples).to(device)
        yield autoencoder.points(batch), autoencoder.encode(batch)


def particle_frames(
    source: FrameSource, autoencoder: LatentAutoencoder, rollouts: Sequence[Rollout]
) -> Iterator[tuple[Points, Tensor]]:
    """Read moving particles; memory holds b whole trajectories with their latents. See `Reference`.

    Each trajectory is encoded by itself: all of its times make a batch.
    """
    device = autoencoder.mean.device
    steps = source.samples_per_item
    whole, latents = [], []
    for rollout in rollouts:
        batch = source.read([int(rollout.samples[0]) // steps]).to(device)
        whole.append(autoencoder.points(batch))
        latents.append(autoencoder.encode(batch))
    for lead in range(rollouts[0].num_leads + 1):
        reached = [i for i, rollout in enumerate(rollouts) if rollout.num_leads >= lead]
        step = {i: int(rollouts[i].samples[lead]) % steps for i in reached}
        parts = [_at_step(whole[i], step[i]) for i in reached]
        yield join_points(parts), torch.stack([latents[i][step[i]] for i in reached])


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
