"""The two commands: outputs, exit codes, one-line refusals; all sample files that lie beside the project."""

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from gust_torch.convert.families import FAMILIES
from solvers.common.hdf5_utils import read_hdf5_info, validate

# case -> (family, words that the refusal must have); None where the file is usable
BAD = {
    "cfd_missing_pressure": ("cfd1d", "/pressure is missing"),
    "complex_field": ("burgers1d", "/tensor: expected"),
    "constant_field": ("burgers1d", None),
    "coordinate_mismatch": ("burgers1d", "/x-coordinate has shape (125,)"),
    "corrupt_chunk": ("burgers1d", "/tensor: "),
    "darcy_counts_differ": ("darcy2d", "8 samples, expected 7"),
    "group_shape_differs": ("diffusion_reaction2d", "10 times, expected 11"),
    "group_without_data": ("shallow_water2d", "/0007/data is missing"),
    "inf_field": ("burgers1d", "field 'u' is -inf"),
    "mismatching_shapes": ("burgers1d", "(64, 1)} instead of"),
    "nan_field": ("burgers1d", "in sample 1, time 3"),
    "no_numeric_dataset": ("burgers1d", "/tensor: expected"),
    "ns_unfinished": ("navier_stokes2d", None),
    "text_file": ("burgers1d", "expected an HDF5 file"),
    "truncated": ("burgers1d", "truncated"),
    "wrong_rank_2d": ("burgers1d", "shape (21, 128)"),
    "wrong_rank_5d": ("burgers1d", "shape (6, 21, 128, 1, 1)"),
    "zero_byte": ("burgers1d", "an empty file"),
    "zero_samples": ("burgers1d", "0 samples"),
}


@pytest.fixture
def multimodal(script) -> Callable[[list[str]], int]:
    return script("convert_pdebench_multimodal")


def test_multimodal(sources, out: Path, multimodal, capsys: pytest.CaptureFixture[str]) -> None:
    sources.burgers(num=30)
    command = ["burgers1d", "--root", str(sources.root), "--out", str(out), "--limit", "5", "--samples", "20"]
    assert multimodal([*command, "--verify"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{out}/burgers1d_train.h5  16 trajectories, 80 frames",
        f"{out}/burgers1d_val.h5  2 trajectories, 10 frames",
        f"{out}/burgers1d_test.h5  2 trajectories, 10 frames",
    ]
    assert "100/100 frames (100.0 %)" in printed.err
    assert "ETA" in printed.err
    assert multimodal(command) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert multimodal([*command, "--overwrite", "--splits", "0.5", "0.5", "0", "--seed", "4"]) == 0
    assert not (out / "burgers1d_test.h5").exists()


def test_a_refusal_stands_alone_where_there_is_something_to_note(
    sources, out: Path, multimodal, caplog
) -> None:
    sources.darcy()
    command = ["darcy2d", "--root", str(sources.root), "--out", str(out)]
    assert multimodal(command) == 0
    assert "steady problem" in caplog.text
    caplog.clear()
    assert multimodal(command) == 1
    assert not caplog.records


def test_generic(script, sources, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources.burgers()
    command = ["--pattern", f"{sources.root}/1D/*/Train/*.hdf5", "--out", str(out / "b.h5"), "--limit", "5"]
    assert script("convert_pdebench")([*command, "--samples", "7"]) == 0
    assert capsys.readouterr().out == f"{out}/b.h5  7 trajectories, 35 frames\n"


def test_3d_is_refused_by_name(
    script, sources, out: Path, multimodal, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "3D/Train/3D_CFD_Rand_M1.0_Eta1e-08_Zeta1e-08_periodic_Train.hdf5"
    path = sources.cfd(name, "density pressure Vx Vy Vz", (2, 3, 4, 4, 4))
    root = ["--root", str(sources.root), "--out", str(out)]
    assert multimodal(["cfd3d", *root]) == 1
    assert multimodal(["cfd2d", *root, "--pattern", "3D/Train/*"]) == 1
    assert script("convert_pdebench")(["--pattern", str(path), "--out", str(out / "a.h5")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("3-D compressible flow is not supported" in line for line in lines)
    assert not out.exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_upstream_samples(shared_data: Path, out: Path, multimodal, family: str) -> None:
    root = shared_data / "upstream/pdebench"
    command = [family, "--root", str(root), "--out", str(out), "--verify"]
    if family == "cfd1d":  # its two files have different grids
        assert multimodal(command) == 1
        assert not out.exists()
        command += ["--pattern", "1D/CFD/Train/*Eta1.e-8*"]
    assert multimodal(command) == 0
    for path in out.iterdir():
        assert validate(path) == []


@pytest.mark.parametrize("case", BAD)
def test_broken_samples(shared_data: Path, out: Path, multimodal, capsys, case: str) -> None:
    family, words = BAD[case]
    root = shared_data / "upstream/bad/hdf5" / case
    code = multimodal([family, "--root", str(root), "--out", str(out / "new"), "--verify"])
    lines = capsys.readouterr().err.splitlines()
    if words is None:
        assert code == 0
        assert all(validate(path) == [] for path in (out / "new").iterdir())
        return
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {root}")
    assert words in lines[0]
    assert not out.exists()


def test_unfinished_sample_stops_at_its_last_frame(shared_data: Path, out: Path, multimodal, capsys) -> None:
    root = shared_data / "upstream/bad/hdf5/ns_unfinished"
    assert multimodal(["navier_stokes2d", "--root", str(root), "--out", str(out)]) == 0
    assert read_hdf5_info(out / "navier_stokes2d_train.h5").num_samples == 5
    with h5py.File(out / "navier_stokes2d_train.h5") as file:
        assert file["fields/velocity"][:].any(axis=(1, 2, 3)).all()  # no frame of zeros


def test_every_broken_sample_is_listed(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "upstream/bad/hdf5").iterdir()} == set(BAD)
