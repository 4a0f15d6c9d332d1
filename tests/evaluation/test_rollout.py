"""Errors of rollouts that are known exactly: stand-ins that stand still, that are perfect, that blow up."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.evaluation.evaluate import Evaluation
from gust_torch.evaluation.notes import extrapolation_notes, score_notes
from gust_torch.evaluation.report import summarize, table, table_leads
from gust_torch.evaluation.rollout import CURVES
from gust_torch.evaluation.schedule import Settings, make_schedule
from gust_torch.evaluation.scores import METRICS
from gust_torch.latents.frames import GridFrames
from gust_torch.spec import FieldSpec

LINE = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
PLANE = FieldSpec(names=("p", "vorticity"), grid=(8, 4), boundary=("periodic", "wall"), lengths=(2.0, 1.0))


def stand_still(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
    return latent


def curves(evaluation: Evaluation, curve: str, metric: str = "nrmse", channel: int = 0) -> np.ndarray:
    return evaluation.scores.statistics(curve, metric, channel).mean[:-1]


@pytest.mark.parametrize(("kind", "spec"), [("line", LINE), ("plane", PLANE)])
def test_an_operator_that_stands_still_is_persistence(kind: str, spec: FieldSpec, lab: Any) -> None:
    evaluation = lab.run_evaluation(lab.stand_in(spec, stand_still), lab.write_waves(kind, (5, 5, 5)))
    for channel in range(spec.num_channels):
        for metric in METRICS:
            operator, persistence, floor = (curves(evaluation, c, metric, channel) for c in CURVES)
            np.testing.assert_array_equal(operator, persistence)
            np.testing.assert_array_equal(floor, np.zeros(4))
        # The definition, in numpy.
        expected = []
        for lead in range(1, 5):
            fields = [trajectory[:, channel] for trajectory in lab.waves(spec, (5, 5, 5))]
            ratios = [((f[0] - f[lead]) ** 2).mean() / (f[lead] ** 2).mean() for f in fields]
            expected.append(np.sqrt(ratios).mean())
        np.testing.assert_allclose(curves(evaluation, "persistence", "nrmse", channel), expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "spec"), [("line", LINE), ("plane", PLANE)])
def test_a_perfect_operator_has_the_error_of_the_autoencoder(kind: str, spec: FieldSpec, lab: Any) -> None:
    operator = lab.stand_in(spec, lab.exact_step(spec), scale=1.25)
    evaluation = lab.run_evaluation(operator, lab.write_waves(kind, (6, 6)))
    for channel in range(spec.num_channels):
        np.testing.assert_allclose(curves(evaluation, "operator", "nrmse", channel), 0.25, rtol=1e-5)
        np.testing.assert_allclose(curves(evaluation, "autoencoder", "nrmse", channel), 0.25, rtol=1e-5)
        assert evaluation.scores.overtaken_at(channel) is None


def test_pooled_errors_stay_finite_where_the_reference_decays(
    monkeypatch: pytest.MonkeyPatch, lab: Any
) -> None:
    """Every number by its definition, in numpy; trajectory 0 decays to nothing, 1 has one lead fewer."""
    lengths, decay = (4, 3), np.array([1.0, 1.0, 0.1, 0.0])
    fields = [
        f * decay[: len(f), None, None, None] ** (1 - i) for i, f in enumerate(lab.waves(LINE, lengths))
    ]
    monkeypatch.setitem(lab.write_waves.__globals__, "_waves", lambda spec, lengths: fields)
    scores = lab.run_evaluation(lab.stand_in(LINE, stand_still), lab.write_waves("line", lengths)).scores
    f = [values.reshape(len(values), -1).astype(np.float64) for values in fields]
    squares = [((own[1:] - own[:1]) ** 2).mean(1) for own in f]
    for metric, references in (
        ("nrmse", [(own[1:] ** 2).mean(1) for own in f]),
        ("vrmse", [own[1:].var(1) for own in f]),
    ):
        statistics = scores.statistics("persistence", metric, 0)
        per_lead = [sum(s[k] for s in squares) / sum(r[k] for r in references) for k in (0, 1)]
        np.testing.assert_allclose(statistics.pooled[:2], np.sqrt(per_lead), rtol=1e-5)
        assert statistics.mean[2] > 1e3  # the frame that is zero
        own = [np.sqrt(s.mean() / r.mean()) for s, r in zip(squares, references, strict=True)]
        np.testing.assert_allclose(statistics.mean[-1], np.mean(own), rtol=1e-5)
        np.testing.assert_allclose(statistics.quantiles[1, -1], np.median(own), rtol=1e-5)
        total = np.concatenate(squares).mean() / np.concatenate(references).mean()
        np.testing.assert_allclose(statistics.pooled[-1], np.sqrt(total), rtol=1e-5)
    frames = scores.errors("persistence", "nrmse", 0)
    found = summarize(scores, ("u",))["fields"]["u"]["nrmse"]["persistence"]["horizon"]["frame_mean"]
    assert found == pytest.approx(np.nanmean(frames))
    assert np.isnan(frames).tolist() == [[False, False, False], [False, False, True]]


def test_stride_skips_frames_and_start_moves_the_first_one(lab: Any) -> None:
    one, steps = lab.exact_step(LINE), []

    def two(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        steps.append(time_step)
        return one(one(latent, time_step, parameters), time_step, parameters)

    path = lab.write_waves("line", (8,))
    evaluation = lab.run_evaluation(lab.stand_in(LINE, two), path, stride=2, start=1)
    np.testing.assert_array_equal(curves(evaluation, "operator"), np.zeros(3))
    assert evaluation.scores.schedule.samples[0].tolist() == [1, 3, 5, 7]
    torch.testing.assert_close(torch.cat(steps), torch.full((6,), 0.5))  # the example rolls out once more


def test_parameters_and_time_steps_are_those_of_each_trajectory(lab: Any) -> None:
    seen = []

    def step(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        seen.append(torch.cat([time_step[:, None], parameters], dim=1))
        return latent

    path = lab.write_waves("line", (3, 5, 4), steps=(0.1, 0.2, 0.3))
    lab.run_evaluation(lab.stand_in(LINE, step, parameter_names=("nu",)), path)
    # The longest first: trajectories 1, 2, 0.
    torch.testing.assert_close(seen[0], torch.tensor([[0.2, 0.2], [0.3, 0.3], [0.1, 0.1]]))
    torch.testing.assert_close(seen[3], torch.tensor([[0.2, 0.2]]))


def test_ragged_trajectories_count_where_they_reach(lab: Any) -> None:
    lengths = (3, 6, 1, 4)
    path = lab.write_waves("line", lengths)
    operator = lab.stand_in(LINE, stand_still)
    evaluation = lab.run_evaluation(operator, path, batch_size=2)
    metrics = summarize(evaluation.scores, ("u",))
    assert metrics["num_trajectories"] == 3
    assert metrics["too_short"] == [2]
    leads = metrics["leads"]
    assert isinstance(leads, dict)
    assert leads["num_trajectories"] == [3, 3, 2, 1, 1]
    assert leads["times"] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.25])
    # Each alone gives the same numbers.
    alone = lab.run_evaluation(operator, lab.write_waves("line", (1, 6, 1, 1)))
    np.testing.assert_allclose(curves(evaluation, "operator")[3:], curves(alone, "operator")[3:], rtol=1e-6)
    assert "trajectories" in table(evaluation.scores, ("u",))
    assert "too short for a single step, left out: 1" in score_notes(evaluation.scores, ("u",))[0]


@pytest.mark.parametrize("kind", ["line", "plane"])
def test_the_batch_size_does_not_matter(kind: str, lab: Any) -> None:
    spec = {"line": LINE, "plane": PLANE}[kind]
    path = lab.write_waves(kind, (4, 6, 3, 5, 6), steps=(0.1, 0.2, 0.3, 0.4, 0.5))
    operator = lab.tiny_operator(spec)
    reference = lab.run_evaluation(operator, path, batch_size=100)
    for batch_size in (1, 2):
        evaluation = lab.run_evaluation(operator, path, batch_size=batch_size)
        for curve in CURVES:
            for metric in METRICS:
                # Sums of float32 in another order.
                expected = curves(reference, curve, metric)
                np.testing.assert_allclose(curves(evaluation, curve, metric), expected, rtol=1e-4)


def test_no_more_frames_are_read_at_once_than_rollouts_in_a_batch(
    monkeypatch: pytest.MonkeyPatch, lab: Any
) -> None:
    sizes, read = [], GridFrames.read

    def count(self: GridFrames, items: Sequence[int]) -> object:
        sizes.append(len(items))
        return read(self, items)

    monkeypatch.setattr(GridFrames, "read", count)
    path = lab.write_waves("line", (5, 9, 9, 3, 9))
    lab.run_evaluation(lab.stand_in(LINE, stand_still), path, batch_size=2)
    # Batches of leads 8 and 8, 8 and 4, 2; then the example, again.
    assert sizes == [2] * 9 + [2] * 5 + [1] * 4 + [1] * 3 + [1] * 9


@pytest.mark.parametrize(("stride", "expected"), [(1, 0), (2, 1)])
def test_steps_that_the_operator_was_not_trained_with_are_pointed_out(
    stride: int, expected: int, lab: Any
) -> None:
    source = GridFrames(HDF5Dataset(lab.write_waves("line", (5, 5))))
    schedule = make_schedule(source.trajectories, source.times, Settings(stride=stride), "waves")
    operator = lab.tiny_operator(LINE)
    parameters = torch.tensor([[0.1], [0.2]])
    operator.autoencoder.set_statistics(torch.ones(1), torch.ones(1))
    assert (
        extrapolation_notes(schedule, parameters, source, operator) == []
    )  # nothing is known of the training
    operator.set_conditioning(torch.tensor([[0.1], [0.2]]), torch.tensor([0.25, 0.25]))
    lines = extrapolation_notes(schedule, parameters, source, operator)
    assert len(lines) == expected
    assert all("time steps of 0.5 to 0.5 lie beyond" in line for line in lines)


@pytest.mark.parametrize(
    ("trained", "factor", "told"),
    [
        ([0.1, 0.2], 1.0, False),
        ([0.1, 0.2], 1000.0, True),
        ([0.1, 0.2], -1000.0, True),
        ([0.1, 0.1], 1.0, False),
        ([0.1, 0.1], 1.1, True),  # it never varied
        ([1e-4, 1.0], 10.0, True),
        ([1e-4, 1.0], 0.1, False),
    ],
)
def test_parameters_far_from_the_training_are_told(
    trained: list[float], factor: float, told: bool, lab: Any
) -> None:
    source = GridFrames(HDF5Dataset(lab.write_waves("line", (5, 5))))
    schedule = make_schedule(source.trajectories, source.times, Settings(), "waves")
    operator = lab.tiny_operator(LINE)
    operator.autoencoder.set_statistics(torch.ones(1), torch.ones(1))
    operator.set_conditioning(torch.tensor(trained)[:, None], torch.tensor([0.25, 0.25]))
    own = torch.tensor([[trained[0]], [trained[1] * factor]])
    lines = extrapolation_notes(schedule, own, source, operator)
    assert ["parameter nu" in line and "(1 of 2 trajectories)" in line for line in lines] == [True] * told


@pytest.mark.parametrize("factor", [0.01, 0.9, 1000.0])
def test_values_in_other_units_are_told(factor: float, lab: Any) -> None:
    source = GridFrames(HDF5Dataset(lab.write_waves("line", (5, 5))))
    schedule = make_schedule(source.trajectories, source.times, Settings(), "waves")
    operator = lab.tiny_operator(LINE)
    operator.autoencoder.set_statistics(torch.ones(1), torch.full((1,), factor))
    lines = extrapolation_notes(schedule, torch.zeros(2, 1), source, operator)
    assert len(lines) == (factor != 0.9)
    assert all("u has the standard deviation" in line and "other units" in line for line in lines)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.0, "no better than persistence"),
        (0.0, "no better than zeros"),
        (-2.0, "worse than persistence"),
    ],
)
def test_an_operator_of_no_use_gets_no_praise(factor: float, words: str, lab: Any) -> None:
    def step(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        return factor * latent

    evaluation = lab.run_evaluation(lab.stand_in(LINE, step), lab.write_waves("line", (5, 5, 5)))
    text = " ".join(score_notes(evaluation.scores, ("u",)))
    assert words in text or "worse than" in text
    assert "better than each" not in text


def test_an_operator_that_predicts_the_mean_gets_no_praise(lab: Any) -> None:
    """Better than persistence and than zeros, yet a constant."""

    def step(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        mean = latent.mean(1, keepdim=True)
        return mean + 0.03 * (latent - mean)

    evaluation = lab.run_evaluation(lab.stand_in(LINE, step), lab.write_waves("line", (5, 5, 5)))
    lines = score_notes(evaluation.scores, ("u",))
    assert "u: over all leads it is no better than each frame's mean (1 against 1)" in lines


def test_a_good_operator_is_praised(lab: Any) -> None:
    evaluation = lab.run_evaluation(
        lab.stand_in(LINE, lab.exact_step(LINE), scale=1.1), lab.write_waves("line", (5, 5))
    )
    assert score_notes(evaluation.scores, ("u",)) == [
        "u: the operator's error is below that of persistence at every lead, each frame's mean (VRMSE 1) at "
        "every lead, zeros (nRMSE 1) at every lead",
        "u: over all leads it is better than each of these",
    ]


def test_large_grids_are_decoded_in_parts(monkeypatch: pytest.MonkeyPatch, lab: Any) -> None:
    path, operator = lab.write_waves("plane", (4, 4)), lab.tiny_operator(PLANE)
    whole = lab.run_evaluation(operator, path)
    monkeypatch.setattr("gust_torch.evaluation.rollout.DECODED_POINTS", 10)
    np.testing.assert_allclose(
        curves(lab.run_evaluation(operator, path), "operator"), curves(whole, "operator"), rtol=1e-4
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_rollout_that_blows_up_is_seen(bad: float, lab: Any) -> None:
    calls = 0

    def step(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            latent = latent.clone()
            latent[0, 0] = bad
        return latent

    evaluation = lab.run_evaluation(lab.stand_in(LINE, step), lab.write_waves("line", (5, 5, 5)))
    statistics = evaluation.scores.statistics("operator", "nrmse", 0)
    assert statistics.num_not_finite.tolist() == [0, 0, 1, 1, 1]
    assert np.isinf(statistics.mean[2:]).all()
    assert np.isfinite(statistics.quantiles[1]).all()  # two of three are fine
    metrics = summarize(evaluation.scores, ("u",))
    assert np.isinf(statistics.pooled[2:]).all()
    assert metrics["summary"]["nrmse"]["operator"]["pooled"] is None
    assert metrics["summary"]["nrmse"]["operator"]["median"] > 0
    assert metrics["fields"]["u"]["nrmse"]["operator"]["horizon"]["num_not_finite"] == 1
    assert metrics["fields"]["u"]["nrmse"]["persistence"]["num_not_finite"] == [0, 0, 0, 0]
    assert "inf" in table(evaluation.scores, ("u",))
    assert any(
        "not finite, from lead 3 on: 1 of 3" in line for line in score_notes(evaluation.scores, ("u",))
    )


def test_the_table_is_aligned_and_complete(lab: Any) -> None:
    evaluation = lab.run_evaluation(lab.stand_in(PLANE, stand_still), lab.write_waves("plane", (30, 30)))
    lines = table(evaluation.scores, PLANE.names).splitlines()
    assert lines[0].split() == ["field", "metric", "lead", "1", "2", "5", "12", "29", "all"]
    assert lines[1].split() == ["time", "0.25", "0.5", "1.25", "3", "7.25"]
    assert [line.split()[:3] for line in lines[2::9]] == [[name, "nRMSE", "operator"] for name in PLANE.names]
    firsts = [line.split()[0] for line in lines[3:11]]
    assert firsts == [*CURVES[1:], "nRMSE,", *CURVES[1:], "VRMSE", *CURVES[1:]]
    assert len(lines) == 2 + 2 * 3 * 3
    assert len({len(line) for line in lines if "time" not in line}) == 1
    assert sum("persistence at no lead" in line for line in score_notes(evaluation.scores, PLANE.names)) == 2


def test_leads_of_the_table() -> None:
    assert table_leads(1) == [1]
    assert table_leads(3) == [1, 2, 3]
    assert table_leads(200)[0] == 1
    assert table_leads(200)[-1] == 200
