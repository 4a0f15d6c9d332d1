"""The command, end to end on tiny files, and its errors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.analyze_reconstruction import main


def run(checkpoint: Path, data: Path, output: Path, *flags: str) -> int:
    required = ["--checkpoint", str(checkpoint), "--data_path", str(data), "--output_dir", str(output)]
    return main([*required, "--accelerator", "cpu", *flags])


def test_whole_command(
    turbulence_checkpoint: Path, turbulence_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "analysis"
    flags = ("--sample_start", "1", "--sample_stop", "10000", "--batch_size", "4")
    assert run(turbulence_checkpoint, turbulence_file, output, *flags) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "curves.npz",
        "enstrophy_spectrum.png",
        "metrics.json",
        "pixel_histogram.png",
        "rate_distortion.png",
        "reconstructions.png",
        "tke_spectrum.png",
    ]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["format_version"] == 1
    assert (metrics["sample_start"], metrics["sample_stop"], metrics["num_samples"]) == (1, 7, 6)
    assert metrics["checkpoint"] == str(turbulence_checkpoint)
    assert metrics["data_path"] == [str(turbulence_file)]
    assert {"package_version", "git_commit", "architecture", "spec"} <= set(metrics)
    field = metrics["fields"]["vorticity"]
    for key in ("js_divergence", "tv_distance", "wasserstein1"):
        assert 0 < field[key] < 100
    assert set(field["vrmse"]["quantiles"]) == {"0.05", "0.5", "0.95"}
    assert set(field["spectral_error"]) == {"large", "inertial", "small"}
    assert metrics["tokens"]["bits_per_pixel"] == pytest.approx(270 / 1024)
    out = capsys.readouterr().out
    assert "vorticity: VRMSE" in out
    assert str(output / "tke_spectrum.png") in out


def test_fields_between_walls(convection_checkpoint: Path, convection_file: Path, tmp_path: Path) -> None:
    assert run(convection_checkpoint, convection_file, tmp_path, "--fields", "[buoyancy,vorticity]") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["fields"]) == {"buoyancy", "vorticity"}
    assert {"tke_spectrum.png", "enstrophy_spectrum.png", "power_spectrum.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
    # A second run replaces the first one.
    assert run(convection_checkpoint, convection_file, tmp_path, "--sample_stop", "2") == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["num_samples"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--checkpoint", "missing.ckpt"), "no checkpoint at missing.ckpt"),
        (("--data_path", "missing.h5"), "missing.h5"),
        (("--fields", "pressure"), "pressure"),
        (("--sample_start", "7"), "no frames from"),
        (("--batch_size", "0"), "batch_size >= 1"),
        (("--accelerator", "abacus"), "abacus is not one of auto, cpu"),
    ],
)
def test_errors_are_one_line(
    flags: tuple[str, ...],
    message: str,
    turbulence_checkpoint: Path,
    turbulence_file: Path,
    refused: Callable[..., None],
) -> None:
    refused(turbulence_checkpoint, turbulence_file, message, *flags)


def test_data_of_another_grid_are_refused(
    turbulence_checkpoint: Path, convection_file: Path, refused: Callable[..., None]
) -> None:
    refused(turbulence_checkpoint, convection_file, "32x16")


def test_an_output_folder_that_is_a_file_is_refused(
    turbulence_checkpoint: Path, turbulence_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    assert run(turbulence_checkpoint, turbulence_file, tmp_path / "out") == 1
    assert "out" in capsys.readouterr().err


def test_help_runs_as_a_module_without_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['analyze', '--help']\n"
        "try: runpy.run_module('gust_torch.analyze_reconstruction', run_name='__main__')\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--sample_stop" in result.stdout
    assert result.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length_x": 4.0}, "lengths"),
        ({"grid_y": "uniform"}, "grid_y"),
        ({"boundary_x": "wall"}, "bound"),
    ],
)
def test_another_domain_or_grid_is_refused(
    change: dict[str, object],
    words: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    refused: Callable[..., None],
) -> None:
    kind = "convection" if "grid_y" in change else "turbulence"
    copy = shutil.copy(request.getfixturevalue(f"{kind}_file"), tmp_path / "other.h5")
    with h5py.File(copy, "r+") as file:
        file["metadata"].attrs.update(change)
        h, w = file["fields/vorticity"].shape[1:]
        if "length_x" in change:
            file["coordinates/x"][:] = np.arange(h) * 4.0 / h
        if "grid_y" in change:
            file["coordinates/y"][:] = (np.arange(w) + 0.5) / w
    refused(request.getfixturevalue(f"{kind}_checkpoint"), copy, words)


def test_values_of_another_scale_are_told(
    turbulence_checkpoint: Path, turbulence_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "other.h5"
    shutil.copy(turbulence_file, copy)
    with h5py.File(copy, "r+") as file:
        file["fields/vorticity"][:] *= 1000
    assert run(turbulence_checkpoint, copy, tmp_path / "out") == 0
    assert "vorticity has the standard deviation" in caplog.text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["fields_of_other_scale"] == [
        "vorticity"
    ]
    caplog.clear()
    assert run(turbulence_checkpoint, turbulence_file, tmp_path / "out") == 0
    assert not caplog.text


def test_a_field_of_one_component_is_a_scalar(
    turbulence_checkpoint: Path, turbulence_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "one.h5"
    shutil.copy(turbulence_file, copy)
    with h5py.File(copy, "r+") as file:
        values = file["fields/vorticity"][:]
        del file["fields/vorticity"]
        file["fields/vorticity"] = values[..., None]
    assert run(turbulence_checkpoint, copy, tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tke_spectrum.png", "enstrophy_spectrum.png"} <= names
