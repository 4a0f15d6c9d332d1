"""`scripts/evaluate.py` end to end on tiny files, and its errors."""

import dataclasses
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from gust_torch.checkpoint import MODEL_KEY, model_state, save_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.evaluation.command import main
from gust_torch.identity import IDENTITY_KEY, content_digest
from gust_torch.latents.key import data_identity
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.spec import FieldSpec

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate.py"
SPEC = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
PNG = b"\x89PNG\r\n\x1a\n"
Refused = Callable[..., None]


def run(checkpoint: Path, data: Path, output: Path, *flags: str) -> int:
    required = ["--checkpoint", str(checkpoint), "--data_path", str(data), "--output_dir", str(output)]
    return main([*required, "--device", "cpu", *flags])


@pytest.mark.parametrize(("kind", "fields"), [("line", ["u"]), ("plane", ["p", "vorticity"])])
def test_whole_command(
    kind: str,
    fields: list[str],
    checkpoints: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lab: Any,
) -> None:
    data, output = lab.write_waves(kind, (5, 3, 1, 6)), tmp_path / "deep" / "evaluation"
    assert run(checkpoints[kind], data, output, "--batch_size", "2", "--limit", "3") == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "metrics.json",
        "rollout.png",
        "rollout_fields.png",
    ]
    for name in ("rollout.png", "rollout_fields.png"):
        content = (output / name).read_bytes()
        assert content.startswith(PNG)
        assert str(checkpoints[kind]).encode() in content
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["format_version"] == 1
    assert metrics["settings"] == {"horizon": None, "start": 0, "stride": 1, "limit": 3, "batch_size": 2}
    assert (metrics["num_trajectories"], metrics["too_short"]) == (2, [2])
    assert len(metrics["checkpoint_sha256"]) == 64
    assert metrics["data_path"] == str(data)
    assert metrics["parameter_names"] == ["nu"]
    assert {"package_version", "git_commit", "architecture", "spec", "device"} <= set(metrics)
    assert metrics["leads"]["num_trajectories"] == [2, 2, 1, 1]
    assert list(metrics["fields"]) == fields
    for field in metrics["fields"].values():
        for metric in ("nrmse", "vrmse"):
            for curve in ("operator", "persistence", "autoencoder"):
                numbers = field[metric][curve]
                assert set(numbers["quantiles"]) == {"0.25", "0.5", "0.75"}
                assert len(numbers["pooled"]) == len(numbers["mean"]) == len(numbers["quantiles"]["0.5"]) == 4
                assert all(numbers["horizon"][name] > 0 for name in ("pooled", "mean", "frame_mean"))
                assert all(metrics["summary"][metric][curve][name] > 0 for name in ("pooled", "median"))
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["field", "metric", "lead", "1", "2", "3", "4", "all"]
    assert str(output / "rollout.png") in out
    if kind == "line":  # A second run replaces the first one.
        assert run(checkpoints[kind], data, output, "--horizon", "2") == 0
        assert json.loads((output / "metrics.json").read_text())["leads"]["steps"] == [1, 2]


def test_the_script_is_the_command(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Any
) -> None:
    flags = {"checkpoint": checkpoints["line"], "data_path": lab.write_waves("line", (3,))}
    words = [f"--{name}={value}" for name, value in {**flags, "output_dir": tmp_path}.items()]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words, "--accelerator", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 0
    assert (tmp_path / "metrics.json").exists()


def test_help_needs_no_torch() -> None:
    code = (
        f"import runpy, sys; sys.argv = ['evaluate.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--horizon" in result.stdout
    assert result.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--checkpoint", "missing.ckpt"), "no checkpoint at missing.ckpt"),
        (("--data_path", "missing.h5"), "missing.h5"),
        (("--horizon", "5"), "the longest possible is 4"),
        (("--horizon", "0"), "--horizon is 0, expected 1 or more"),
        (("--stride", "0"), "--stride is 0"),
        (("--start", "-1"), "--start is -1"),
        (("--start", "4"), "long enough for one step with --start 4"),
        (("--limit", "0"), "--limit is 0"),
        (("--batch_size", "0"), "--batch_size is 0"),
        (("--accelerator", "abacus"), "abacus is not one of auto, cpu"),
    ],
)
def test_errors_are_one_line(
    flags: tuple[str, ...], message: str, checkpoints: dict[str, Path], refused: Refused, lab: Any
) -> None:
    refused(checkpoints["line"], lab.write_waves("line", (5, 3)), message, *flags)


def test_models_and_data_that_do_not_fit_are_refused(
    checkpoints: dict[str, Path], tmp_path: Path, refused: Refused, lab: Any
) -> None:
    data = lab.write_waves("line", (3,))
    autoencoder = LatentAutoencoder(SPEC, latent_len=2, latent_dim=4, width=8, num_heads=2)
    save_model(autoencoder, tmp_path / "autoencoder.ckpt")
    refused(tmp_path / "autoencoder.ckpt", data, "holds a LatentAutoencoder, expected a LatentOperator")
    save_model(lab.tiny_operator(dataclasses.replace(SPEC, grid=(32, 1))), tmp_path / "finer.ckpt")
    refused(tmp_path / "finer.ckpt", data, "grid 32x1, got 16x1")
    refused(checkpoints["plane"], data, "no field 'p'")
    refused(checkpoints["line"], lab.write_waves("line", (3,), parameters=False), "has no parameter nu")


def test_a_parameter_without_a_logarithm_is_refused(tmp_path: Path, refused: Refused, lab: Any) -> None:
    operator, data = lab.tiny_operator(SPEC), lab.write_waves("line", (3, 3))  # nu = 0.1, 0.2
    operator.set_conditioning(torch.tensor([[0.01], [1.0]]), torch.tensor([0.25]))
    save_model(operator, tmp_path / "operator.ckpt")
    with h5py.File(data, "r+") as file:
        file["parameters/nu"][1] = 0.0
    refused(tmp_path / "operator.ckpt", data, "parameter nu of trajectory 1 is 0")
    assert run(tmp_path / "operator.ckpt", data, tmp_path / "out", "--limit", "1") == 0


def test_an_output_folder_that_is_a_file_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], lab: Any
) -> None:
    (tmp_path / "out").write_text("")
    assert run(checkpoints["line"], lab.write_waves("line", (3,)), tmp_path / "out") == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("entry", ["content", "data"])
def test_the_very_file_of_the_training_is_told(
    entry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], lab: Any
) -> None:
    data = lab.write_waves("line", (5, 3))
    other = lab.write_waves("line", (5, 3), parameters=True, steps=(0.1, 0.1))
    operator = lab.tiny_operator(SPEC)
    if entry == "content":
        identity = {"n_steps": 2, "stride": 1, "train content": content_digest(HDF5Dataset(data, n_steps=2))}
    else:
        identity = {"val data": data_identity(data).sha256}
    checkpoint = {MODEL_KEY: model_state(operator), IDENTITY_KEY: identity}
    checkpoint["state_dict"] = {f"model.{name}": value for name, value in operator.state_dict().items()}
    torch.save(checkpoint, tmp_path / "trained.ckpt")
    assert run(tmp_path / "trained.ckpt", data, tmp_path / "out") == 0
    words = "is the very file that the operator was"
    assert words in capsys.readouterr().out
    assert any(words in line for line in json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"])
    if entry == "data":
        assert run(tmp_path / "trained.ckpt", other, tmp_path / "out") == 0
        assert words not in capsys.readouterr().out
