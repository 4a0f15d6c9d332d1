"""One rollout's fields, kept for the picture."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.evaluation.reference import Reference
from gust_torch.evaluation.rollout import roll_out
from gust_torch.evaluation.schedule import Rollout
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import num_dims

# A picture of space and time shows no more rows; of the plane or of particles, a panel for each.
SPACE_TIME_LEADS, PANEL_LEADS = 256, 3


@dataclass(frozen=True)
class Frame:
    """One lead.

    Attributes:
        lead: Its number; 0 is the start, where the prediction is what the autoencoder makes of the truth.
        time: Since the start.
        coordinates: (n, d).
        reference: (n, c).
        prediction: (n, c).
    """

    lead: int
    time: float
    coordinates: NDArray[np.float32]
    reference: NDArray[np.float32]
    prediction: NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """Some leads of one rollout, in their order.

    Attributes:
        trajectory: Its number in the file.
        parameters: Name -> value.
        frames: The leads.
    """

    trajectory: int
    parameters: dict[str, float]
    frames: tuple[Frame, ...]


@torch.inference_mode()
def make_example(
    operator: LatentOperator, reference: Reference, rollout: Rollout, parameters: Tensor
) -> Example:
    """Roll out one trajectory again and keep some of its leads.

    Args:
        operator: In evaluation mode.
        reference: True frames.
        rollout: The trajectory.
        parameters: (1, p).
    """
    wanted = set(example_leads(rollout.num_leads, space_time=num_dims(operator.spec) == 1))
    frames = []
    for step in roll_out(operator, reference, [rollout], parameters):
        if step.lead in wanted:
            frames.append(
                Frame(
                    lead=step.lead,
                    time=float(rollout.times[step.lead] - rollout.times[0]),
                    coordinates=_array(step.reference.coordinates),
                    reference=_array(step.reference.values),
                    prediction=_array(step.estimates["operator"]),
                )
            )
    values = dict(zip(operator.parameter_names, parameters[0].tolist(), strict=True))
    return Example(rollout.trajectory, values, tuple(frames))


def example_leads(num_leads: int, *, space_time: bool) -> list[int]:
    """Leads to keep: evenly spaced from the start on, or a first, a middle and the last one."""
    if space_time:
        leads = np.linspace(0, num_leads, min(num_leads + 1, SPACE_TIME_LEADS))
    else:
        leads = np.geomspace(1, num_leads, PANEL_LEADS)
    return sorted({round(lead) for lead in leads.tolist()})


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy().copy()
    return array
