"""The whole chain through its commands, on small runs of both solvers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch import HDF5Dataset, VQVAETokenizer, load_tokenized_data
from gust_torch.analyze_reconstruction import main as analyze
from gust_torch.tasks.cli import main as train
from gust_torch.tokenizer.__main__ import main as tokenizer
from solvers.common.hdf5_utils import validate
from solvers.py2d_turbulence.run_solver import main as simulate_turbulence
from solvers.rayleigh_benard.run_solver import main as simulate_convection

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "vqvae"


def simulate(solver: str, folder: Path) -> None:
    """Return a few dozen frames: 32 x 32 turbulence or 32 x 16 convection."""
    if solver == "turbulence":
        flags = ["--NX", "32", "--dt", "5e-3", "--tTotal", "2", "--tSave", "0.05", "--fkx", "2", "--fky", "2"]
        assert simulate_turbulence(["--output_dir", str(folder), *flags]) == 0
    else:
        pytest.importorskip("dedalus")
        flags = [
            "--resolution",
            "32x16",
            "--rayleigh",
            "1e5",
            "--stop_sim_time",
            "5",
            "--snapshot_dt",
            "0.125",
        ]
        assert simulate_convection(["--output_dir", str(folder), *flags]) == 0


@pytest.mark.parametrize(
    ("solver", "fields", "scales"),
    [
        ("turbulence", ["vorticity"], "[[1,1],[4,4],[8,8]]"),
        ("rayleigh_benard", ["buoyancy", "vorticity"], "[[1,1],[4,2],[8,4]]"),
    ],
)
def test_simulation_to_tokens(solver: str, fields: list[str], scales: str, tmp_path: Path) -> None:
    simulate(solver, tmp_path)
    data, checkpoint = tmp_path / "output.h5", tmp_path / "vqvae" / "checkpoints" / "last.ckpt"
    assert validate(data) == []

    flags = ["--data.data_path", str(data), "--data.fields", str(fields), "--model.scales", scales]
    flags += ["--model.base_channels", "8", "--model.channel_mult", "[1,1]", "--model.num_res_blocks", "1"]
    flags += ["--model.codebook_dim", "8", "--model.vocab_size", "16", "--model.attention_heads", "2"]
    flags += ["--model.autoencoder_steps", "4", "--model.warmup_steps", "2"]
    flags += ["--data.num_workers", "0", "--data.batch_size", "4"]
    flags += ["--trainer.max_epochs", "-1", "--trainer.max_steps", "10", "--trainer.accelerator", "cpu"]
    flags += ["--trainer.default_root_dir", str(tmp_path / "vqvae"), "--trainer.log_every_n_steps", "1"]
    train(["fit", "--config", str(CONFIGS / f"{solver}.yaml"), *flags])

    inputs = ["--checkpoint", str(checkpoint), "--data_path", str(data), "--accelerator", "cpu"]
    assert tokenizer(["save", *inputs, "--output", str(tmp_path / "tokens.npz")]) == 0
    tokens = load_tokenized_data(tmp_path / "tokens.npz")
    assert tokens["indices_flat"].shape[0] == 41

    # What the tokens decode to is what the model reconstructs, bit for bit, in physical units.
    decoder = VQVAETokenizer.from_checkpoint(checkpoint).use_vocabulary(tmp_path / "tokens.npz")
    dataset = HDF5Dataset(data, fields=fields)
    frames = torch.stack([dataset[i] for i in range(8)])
    decoded = decoder.decode(torch.from_numpy(np.asarray(tokens["indices_flat"][:8])).long())
    torch.testing.assert_close(decoded, decoder.reconstruct(frames), rtol=0, atol=0)

    assert analyze([*inputs, "--output_dir", str(tmp_path / "analysis")]) == 0
    for name in ("tke_spectrum.png", "enstrophy_spectrum.png", "pixel_histogram.png", "reconstructions.png"):
        assert (tmp_path / "analysis" / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((tmp_path / "analysis" / "metrics.json").read_text())
    assert metrics["num_samples"] == 41
    assert set(metrics["fields"]) == set(fields)
