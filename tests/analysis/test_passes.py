"""The pass over the data: what it scores, and that batches do not matter."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.analysis.passes import analyze
from gust_torch.analysis.report import summarize
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.histogram import js_divergence, total_variation
from gust_torch.models.vqvae import VQVAE2d


def test_scores_the_decoded_tokens(convection: VQVAE2d, convection_file: Path) -> None:
    dataset = HDF5Dataset(convection_file, fields=["buoyancy", "vorticity"])
    analysis = analyze(convection, dataset, batch_size=7)
    x = torch.stack([dataset[i] for i in range(7)])
    with torch.no_grad():
        indices = convection.tokenize(x)
        x_hat = convection.decode(indices)
    metrics = summarize(analysis)
    fields = metrics["fields"]
    for channel, name in enumerate(("buoyancy", "vorticity")):
        error = vrmse(x_hat, x)[:, channel]
        assert fields[name]["vrmse"]["mean"] == pytest.approx(float(error.mean()), rel=1e-5)
        counts, edges = analysis.histogram.coarse(channel)
        expected = [np.histogram(f[:, channel].double(), edges.numpy())[0] for f in (x, x_hat)]
        # A value may sit on an edge to single precision.
        assert np.abs(counts.numpy() - np.stack(expected)).sum() <= 4
        assert fields[name]["js_divergence"] == pytest.approx(float(js_divergence(*counts)))
        assert fields[name]["tv_distance"] == pytest.approx(float(total_variation(*counts)))
    for usage, index in zip(analysis.usages, indices, strict=True):
        assert usage.codes_in_use == len(index.unique())
        p = index.flatten().bincount() / index.numel()
        assert usage.entropy_bits == pytest.approx(float(-torch.xlogy(p, p).sum()) / math.log(2), abs=1e-5)
    example = analysis.examples[1]
    assert example.position == 3
    assert example.time == 0.75
    np.testing.assert_allclose(example.reconstruction, x_hat[3].numpy(), rtol=1e-6)
    assert [e.position for e in analysis.examples] == [1, 3, 5]


def test_batch_size_and_workers_do_not_matter(turbulence: VQVAE2d, turbulence_file: Path) -> None:
    dataset = HDF5Dataset(turbulence_file)
    seen: list[int] = []
    whole = summarize(analyze(turbulence, dataset, batch_size=7, on_batch=seen.append))
    parts = summarize(analyze(turbulence, dataset, batch_size=2, num_workers=1))
    assert seen == [7]

    def numbers(value: object) -> list[float]:
        if isinstance(value, dict):
            return [n for key in value for n in numbers(value[key])]
        if isinstance(value, list):
            return [n for entry in value for n in numbers(entry)]
        return [float(value)] if isinstance(value, int | float) else []

    # Another batch shape rounds differently in the network, which could move a token; here none moves.
    np.testing.assert_allclose(numbers(whole), numbers(parts), rtol=1e-4, atol=1e-7)


def test_bits_and_code_usage(turbulence: VQVAE2d, turbulence_file: Path) -> None:
    metrics = summarize(analyze(turbulence, HDF5Dataset(turbulence_file)))
    tokens = metrics["tokens"]
    bits = 1 * 2 + 4 * 3 + 64 * 4
    assert tokens["tokens_per_sample"] == 69
    assert tokens["bits_per_pixel"] == pytest.approx(bits / (32 * 32))
    assert tokens["bits_per_pixel_entropy_coded"] < tokens["bits_per_pixel"]
    for scale in tokens["scales"]:
        assert scale["perplexity_over_vocab_size"] == pytest.approx(scale["perplexity"] / scale["vocab_size"])


def test_range_of_samples(turbulence: VQVAE2d, turbulence_file: Path) -> None:
    dataset = HDF5Dataset(turbulence_file, sample_start=2, sample_stop=4)
    analysis = analyze(turbulence, dataset)
    assert analysis.num_samples == 2
    assert [example.time for example in analysis.examples] == [0.5, 0.75]


def test_bands_say_where_they_lie(
    turbulence: VQVAE2d, turbulence_file: Path, convection: VQVAE2d, convection_file: Path
) -> None:
    known = summarize(analyze(turbulence, HDF5Dataset(turbulence_file)))["bands"]
    assert known["forcing_wavenumber_known"]
    assert known["upper_wavenumbers"] == pytest.approx({"large": 4.0, "inertial": 32 / 3, "small": 16.0})
    metrics = summarize(analyze(convection, HDF5Dataset(convection_file)))
    default = metrics["bands"]
    assert not default["forcing_wavenumber_known"]
    assert default["forcing_wavenumber"] == pytest.approx(2 * math.pi, rel=1e-5)
    spectra = metrics["spectra"]
    assert spectra["kinetic_energy"]["from"] == "vorticity"
    assert "sine transform along z" in spectra["kinetic_energy"]["transform"]
    assert "cosine transform along z" in spectra["enstrophy"]["transform"]


def test_a_reconstruction_that_is_not_finite_is_refused(turbulence_file: Path, turbulence: VQVAE2d) -> None:
    broken = VQVAE2d(turbulence.spec, **turbulence.architecture())  # type: ignore[arg-type]
    broken.load_state_dict(turbulence.state_dict())
    with torch.no_grad():
        next(iter(broken.decoder.parameters())).fill_(math.nan)
    with pytest.raises(ValueError, match="the reconstruction holds NaN"):
        analyze(broken, HDF5Dataset(turbulence_file))
