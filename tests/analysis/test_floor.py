"""The yardstick beside the tokens: curves that fall with the rate, in any unit; none where there is none."""

from pathlib import Path

import torch

from gust_torch.analysis.floor import RATIOS, FloorFrames, rate_distortion_figure
from gust_torch.metrics.transform_coding import RatePoint
from gust_torch.spec import FieldSpec

SPEC = FieldSpec(("vorticity", "b"), (16, 16))


def frames(num: int) -> FloorFrames:
    generator = torch.Generator().manual_seed(0)
    kept = FloorFrames(SPEC, num, torch.device("cpu"))
    kept.update(torch.randn(num, 2, 16, 16, generator=generator) * torch.tensor([1.0, 1e-6])[:, None, None])
    return kept


def test_errors_fall_with_the_rate_and_stay_above_the_bound_in_any_unit() -> None:
    kept = frames(40)
    for channel in (0, 1):
        floor = kept.floor(channel, 1.0)
        assert floor is not None
        errors = [point.vrmse for point in floor.code]
        assert errors == sorted(errors, reverse=True)
        assert all(c.vrmse > b.vrmse for c, b in zip(floor.code, floor.bound, strict=True))
        assert [round(p.bits_per_pixel, 2) for p in floor.code] == list(RATIOS)


def test_there_is_none_of_one_frame_or_no_bits() -> None:
    assert frames(1).floor(0, 1.0) is None
    assert frames(4).floor(0, 0.0) is None


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    floor = frames(10).floor(0, 0.5)
    assert floor is not None
    figure = rate_distortion_figure({"vorticity": (floor, RatePoint(0.5, 0.4))})
    figure.savefig(tmp_path / "rate_distortion.png")
    assert figure.axes[0].get_ylabel() == "VRMSE"
