"""Losses, schedule, augmentation and validation sums."""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec
from gust_torch.tasks.model_task import warmup_share
from gust_torch.tasks.validation import MeanSums, num_true_samples, perplexity
from gust_torch.tasks.vqvae import LogSpectrumLoss, random_shifts

SPEC = FieldSpec(names=("a", "b"), grid=(16, 20))


def test_log_spectrum_loss_of_a_scaled_field_is_the_squared_log_of_the_power_ratio():
    loss = LogSpectrumLoss(ShellSpectrum(SPEC))
    x = torch.randn(3, 2, 16, 20)
    assert loss(x, x) == 0
    # the power floor of 1e-6 changes the ratio by as much
    assert loss(2 * x, x).item() == pytest.approx(math.log(4.0) ** 2, rel=1e-4)


def test_log_spectrum_loss_ignores_phase_and_mean_but_not_missing_scales():
    loss = LogSpectrumLoss(ShellSpectrum(SPEC))
    x = torch.randn(3, 2, 16, 20)
    assert loss(x.roll((3, 5), (-2, -1)) + 7.0, x).item() == pytest.approx(0.0, abs=1e-6)
    coarse = torch.fft.rfft2(x)
    coarse[..., 4:-3, :] = 0
    smooth = torch.fft.irfft2(coarse, s=SPEC.grid).requires_grad_()
    value = loss(smooth, x)
    assert value > 0.01
    value.backward()
    assert bool(smooth.grad.isfinite().all())


def test_warm_up_rises_and_the_cosine_ends_at_one_percent():
    shares = [warmup_share(step, warmup=10, total=200) for step in range(201)]
    assert shares[0] == pytest.approx(1 / 11)
    assert max(shares) == shares[10] == 1.0
    assert shares[105] == pytest.approx(0.505)
    assert shares[200] == pytest.approx(0.01)
    assert all(a > b for a, b in pairwise(shares[10:]))


def test_warm_up_of_a_short_run_is_a_tenth_of_it():
    assert warmup_share(2, warmup=1000, total=20) == 1.0


def test_shifts_move_whole_samples_along_periodic_axes_only():
    x = torch.arange(4 * 2 * 6 * 5, dtype=torch.float32).reshape(4, 2, 6, 5)
    y = random_shifts(x, ("periodic", "wall"), torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    shifts = []
    for before, after in zip(x, y, strict=True):
        fits = [s for s in range(6) if torch.equal(before.roll(s, -2), after)]
        assert len(fits) == 1
        shifts += fits
    assert len(set(shifts)) > 1
    again = random_shifts(x, ("periodic", "wall"), torch.Generator().manual_seed(0))
    assert torch.equal(y, again)
    assert not torch.equal(random_shifts(x, ("wall", "periodic"), torch.Generator().manual_seed(0)), x)
    assert torch.equal(random_shifts(x, ("wall", "wall"), torch.Generator().manual_seed(0)), x)


def test_perplexity_is_the_number_of_equally_used_codes():
    assert perplexity(torch.tensor([5, 5, 0, 5])).item() == pytest.approx(3.0)
    assert perplexity(torch.tensor([0, 9])).item() == pytest.approx(1.0)


def test_means_do_not_depend_on_the_batches():
    scalars, spectra = torch.randn(6), torch.randn(6, 2, 5)
    for size in (6, 2):
        sums = MeanSums()
        for i in range(0, 6, size):
            part = slice(i, i + size)
            sums.add({"a": scalars[part].mean(), "b": spectra[part].mean(0)}, size)
        found = sums.reduce(torch.device("cpu"))
        assert torch.allclose(found["a"], scalars.mean())
        assert torch.allclose(found["b"], spectra.mean(0))


@pytest.mark.parametrize("total", [1, 2, 5, 13])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_each_sample_is_counted_by_one_process(total, world):
    data = torch.arange(total)
    counted = []
    for rank in range(world):
        sampler = DistributedSampler(data, num_replicas=world, rank=rank, shuffle=False)
        counted += list(sampler)[: num_true_samples(DataLoader(data, sampler=sampler))]
    assert sorted(counted) == list(range(total))


def test_a_weight_of_zero_adds_the_names_alone():
    sums = MeanSums()
    sums.add({"a": torch.tensor(math.nan)}, 0)
    sums.add({"a": torch.tensor(1.0)}, 3)
    sums.add({"a": torch.tensor(5.0)}, 1)
    assert sums.reduce(torch.device("cpu")) == {"a": torch.tensor(2.0)}
