"""What the table does not show, a line each: data unlike those of the training, and how good an error is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gust_torch.evaluation.schedule import Schedule
from gust_torch.evaluation.scores import Scores
from gust_torch.identity import content_digest, warn_of_scale
from gust_torch.latents.frames import FrameSource, GridFrames, open_grid
from gust_torch.latents.key import data_identity
from gust_torch.models.latent_operator import LatentOperator

# An error that is not below this share of a yardstick's is no better.
CLEARLY = 0.95


def extrapolation_notes(
    schedule: Schedule, parameters: Tensor, source: FrameSource, operator: LatentOperator
) -> list[str]:
    """Say in which ways data and parameters (rollouts, p) lie beyond those of the operator's training."""
    trained = "those that the operator was trained with"
    low, high = operator.time_step_range.tolist()
    lines = []
    steps = np.diff(schedule.times)
    shortest, longest = np.nanmin(steps), np.nanmax(steps)
    if shortest < 0.999 * low or longest > 1.001 * high:
        lines.append(
            f"time steps of {shortest:.4g} to {longest:.4g} lie beyond {trained}, {low:.4g} to {high:.4g}"
        )
    lower, upper = operator.parameter_range.cpu().double().numpy()
    slack = 1e-3 * np.maximum(abs(lower), abs(upper))
    own = parameters.cpu().double().numpy()
    beyond = (own < lower - slack) | (own > upper + slack)
    for i, name in enumerate(operator.parameter_names):
        if (bad := own[beyond[:, i], i]).size:
            lines.append(
                f"parameter {name} of {bad.min():.4g} to {bad.max():.4g} lies beyond {trained}, "
                f"{lower[i]:.4g} to {upper[i]:.4g} ({bad.size} of {len(own)} trajectories)"
            )
    # Units: of the first frames of some trajectories.
    autoencoder = operator.autoencoder
    device, names = autoencoder.std.device, operator.spec.names
    trained_std = autoencoder.std.flatten().tolist()
    starts = schedule.samples[:, 0] // source.samples_per_item
    some = np.unique(starts[np.linspace(0, len(starts) - 1, 8).round().astype(int)]).tolist()
    values = torch.cat([autoencoder.points(source.read([item]).to(device)).values for item in some]).double()
    found_std = values.std(0, correction=0).tolist()
    other = warn_of_scale(trained_std, found_std, names, source="the data")
    lines += [
        f"{name} has the standard deviation {found:.3g}, {there:.3g} in training: other values, "
        "or other units"
        for name, found, there in zip(names, found_std, trained_std, strict=True)
        if name in other
    ]
    return lines


def known_data_notes(path: str, source: FrameSource, trained_on: Mapping[str, object]) -> list[str]:
    """Say where the data are those that the operator was trained or selected on, by `gust_torch.identity`."""
    uses = {"train": "trained on", "val": "chosen by"}
    found: dict[str, str] = {}
    if isinstance(source, GridFrames) and any(f"{split} content" in trained_on for split in uses):
        windows = {name: int(str(trained_on.get(name, 1))) for name in ("n_steps", "stride")}
        found["content"] = content_digest(open_grid(path, source.spec, **windows))
    if Path(path).exists() and any(f"{split} data" in trained_on for split in uses):
        found["data"] = data_identity(path).sha256
    return [
        f"{path} is the very file that the operator was {use}: errors of other data will be larger"
        for split, use in uses.items()
        if any(trained_on.get(f"{split} {entry}") == digest for entry, digest in found.items())
    ]


def score_notes(scores: Scores, names: Sequence[str]) -> list[str]:
    """Say what was left out, what is not finite, and how the operator compares with what knows nothing."""
    lines = []
    if too_short := scores.schedule.too_short:
        lines.append(f"trajectories too short for a single step, left out: {len(too_short)}")
    for channel, name in enumerate(names):
        bad = scores.statistics("operator", "nrmse", channel).num_not_finite[:-1]
        if bad.any():
            lines.append(
                f"{name}: rollouts that are not finite, from lead {int(np.argmax(bad > 0)) + 1} on: "
                f"{bad.max()} of {len(scores.schedule.samples)}; their errors count as infinite"
            )
        lines += [f"{name}: {line}" for line in _verdict(scores, channel)]
    return lines


def _verdict(scores: Scores, channel: int) -> list[str]:
    """How long the operator is better than standing still, each frame's own mean and zeros, and over all."""
    until, worse, hardly = [], [], []
    for yardstick, name, error in (
        ("persistence", "persistence", ""),
        ("mean", "each frame's mean", " (VRMSE 1)"),
        ("zeros", "zeros", " (nRMSE 1)"),
    ):
        lead = scores.overtaken_at(channel, yardstick)
        when = "at every lead" if lead is None else "at no lead" if lead == 1 else f"before lead {lead}"
        until.append(f"{name}{error} {when}")
        own, other = map(float, scores.beside(channel, yardstick, pool=(0, 1)))
        text = f"{name} ({own:.3g} against {other:.3g})"
        if not own <= other:
            worse.append(text)
        elif own > CLEARLY * other:
            hardly.append(text)
    lines = [f"the operator's error is below that of {', '.join(until)}"]
    if worse:
        lines.append(f"over all leads it is worse than {' and '.join(worse)}: of no use as it is")
    if hardly:
        lines.append(f"over all leads it is no better than {' and '.join(hardly)}")
    return lines if worse or hardly else [*lines, "over all leads it is better than each of these"]
