"""Figures of every kind of data can be drawn, also of rollouts that blow up or are exact."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from torch import Tensor

from gust_torch.evaluation.figures import curves_figure, rollout_figure
from gust_torch.evaluation.rollout import example_leads
from gust_torch.figures import write_results
from gust_torch.spec import FieldSpec

LINE = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
PLANE = FieldSpec(names=("p", "vorticity"), grid=(8, 4), boundary=("periodic", "wall"), lengths=(2.0, 1.0))


def scaled(factor: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda latent, time_step, parameters: factor * latent


@pytest.mark.parametrize(
    ("kind", "factor", "lengths"),
    [
        ("line", 1.0, (2,)),
        ("line", 1e30, (6, 3)),
        ("line", math.nan, (6, 3)),
        ("plane", 1e4, (2,)),
        ("plane", math.nan, (6, 3)),
    ],
)
def test_extreme_rollouts_can_be_drawn(
    kind: str,
    factor: float,
    lengths: tuple[int, ...],
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    lab: Any,
) -> None:
    spec = {"line": LINE, "plane": PLANE}[kind]
    evaluation = lab.run_evaluation(lab.stand_in(spec, scaled(factor)), lab.write_waves(kind, lengths))
    figures = {
        "a.png": curves_figure(evaluation.scores, spec),
        "b.png": rollout_figure(evaluation.example, spec),
    }
    files = write_results(tmp_path, figures, {"checkpoint": "model.ckpt"})
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert not [str(found.message) for found in recwarn]


def test_space_and_time_are_drawn_to_the_right_and_up(lab: Any) -> None:
    evaluation = lab.run_evaluation(
        lab.stand_in(LINE, lab.exact_step(LINE), scale=1.5), lab.write_waves("line", (5,))
    )
    figure = rollout_figure(evaluation.example, LINE)
    panels = {axes.get_title(): axes for axes in figure.axes}
    truth, prediction, error = (panels[name].collections[0] for name in ("truth", "prediction", "error"))
    expected = lab.waves(LINE, (5,))[0][:, 0, :, 0]
    for mesh, values in ((truth, expected), (prediction, 1.5 * expected), (error, 0.5 * expected)):
        assert isinstance(mesh, QuadMesh)
        np.testing.assert_allclose(mesh.get_array(), values, rtol=1e-5)
    assert isinstance(truth, QuadMesh)
    corners = np.asarray(truth.get_coordinates())
    np.testing.assert_allclose(corners[0, :, 0], np.linspace(0, 1, 17))
    np.testing.assert_allclose(corners[:, 0, 1], [0, 0.125, 0.375, 0.625, 0.875, 1.0])


def test_the_axis_counts_steps_where_they_differ_in_time(lab: Any) -> None:
    labels = {}
    for steps in ((0.5, 0.5), (0.5, 0.25)):
        evaluation = lab.run_evaluation(
            lab.stand_in(LINE, scaled(0.9)), lab.write_waves("line", (4, 4), steps=steps)
        )
        axes = curves_figure(evaluation.scores, LINE).axes[-1]
        labels[steps] = (axes.get_xlabel(), axes.get_lines()[0].get_xdata())
    assert labels[0.5, 0.5][0] == "lead time $t - t_0$"
    np.testing.assert_allclose(labels[0.5, 0.5][1], [0.5, 1.0, 1.5])
    assert labels[0.5, 0.25][0] == "lead (steps)"
    np.testing.assert_allclose(labels[0.5, 0.25][1], [1, 2, 3])


def test_a_rollout_that_blows_up_does_not_hide_the_yardsticks(lab: Any) -> None:
    evaluation = lab.run_evaluation(lab.stand_in(LINE, scaled(1e5)), lab.write_waves("line", (5, 5)))
    top = evaluation.scores.statistics("persistence", "nrmse", 0).quantiles[:, :-1].max()
    assert curves_figure(evaluation.scores, LINE).axes[0].get_ylim()[1] < 20 * top


def test_leads_of_the_example() -> None:
    assert example_leads(4, space_time=True) == [0, 1, 2, 3, 4]
    leads = example_leads(1000, space_time=True)
    assert (leads[0], leads[-1], len(leads)) == (0, 1000, 256)
    assert example_leads(100, space_time=False) == [1, 10, 100]
    assert example_leads(1, space_time=False) == [1]
