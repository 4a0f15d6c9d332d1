"""The yardstick beside the tokens: curves that fall with the rate, in any unit; none where there is none."""

import pytest
import torch

from gust_torch.analysis.floor import RATIOS, FloorFrames
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
        errors, bounds = floor["vrmse_at_these"], floor["gaussian_bound_at_these"]
        assert errors == sorted(errors, reverse=True)
        assert all(error > bound for error, bound in zip(errors, bounds, strict=True))
        assert floor["bits_per_pixel"] == pytest.approx(RATIOS, abs=0.005)
        assert (floor["vrmse"], floor["vrmse_of_gaussian_bound"]) == (errors[2], bounds[2])


def test_there_is_none_of_one_frame_or_no_bits() -> None:
    assert frames(1).floor(0, 1.0) is None
    assert frames(4).floor(0, 0.0) is None
