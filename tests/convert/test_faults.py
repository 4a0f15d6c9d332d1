"""Sources of public bug reports: nothing is read wrongly without a word, and a refusal is one line."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from gust_torch.convert.commands import convert_family, main, main_files
from gust_torch.convert.output import Options
from solvers.common.hdf5_utils import read_hdf5_info
from tests.convert.conftest import GROUPS, centers, values

Change = Callable[[h5py.File], object]
NAME = "1D_Burgers_Sols_Nu0.01.hdf5"


@pytest.fixture
def refused(sources, out: Path, capsys) -> Callable[..., str]:
    """Convert the root; gives the one line of the refusal, after which nothing is left."""

    def run(family: str = "burgers1d", *options: str) -> str:
        capsys.readouterr()
        code = main([family, "--root", str(sources.root), "--out", str(out), *options])
        lines = capsys.readouterr().err.splitlines()
        assert code == 1
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert not out.exists()
        return lines[0]

    return run


def edit(path: Path, change: Change) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def moved(file: h5py.File, key: str, make: Callable[[h5py.File, np.ndarray], object]) -> None:
    """Put something else in a dataset's place, made from its values."""
    data = file[key][()]
    del file[key]
    make(file, data)


def external_storage(file: h5py.File, data: np.ndarray) -> None:
    raw = Path(file.filename).with_suffix(".raw")
    data.tofile(raw)
    file.create_dataset("tensor", data.shape, "f4", external=[(raw.name, 0, data.nbytes)])


def virtual(file: h5py.File, data: np.ndarray) -> None:
    layout = h5py.VirtualLayout(data.shape, "f4")
    layout[:] = h5py.VirtualSource("gone.h5", "tensor", data.shape)
    file.create_virtual_dataset("tensor", layout)


def partly_written(file: h5py.File, data: np.ndarray, chunk: int = 1) -> None:
    file.create_dataset("tensor", data.shape, "f4", chunks=(chunk, *data.shape[1:]))[:6] = data[:6]


def other_filter(file: h5py.File, data: np.ndarray) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, *data.shape[1:]))
    properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(data.shape)
    h5py.Dataset(h5py.h5d.create(file.id, b"tensor", h5py.h5t.IEEE_F32LE, space, properties))[...] = data


TENSORS = {
    "external link": (lambda f, d: f.__setitem__("tensor", h5py.ExternalLink("o.h5", "tensor")), "o.h5"),
    "dangling link": (lambda f, d: f.__setitem__("tensor", h5py.SoftLink("/nowhere")), "/nowhere"),
    "external storage": (external_storage, "external storage"),
    "virtual source": (virtual, "gone.h5"),
    "never written": (lambda f, d: f.create_dataset("tensor", d.shape, "f4"), "never written"),
    "partly written": (partly_written, "sample 6 was never written"),
    "partly written, large chunks": (lambda f, d: partly_written(f, d, 4), "sample 8 was never written"),
    "filter": (other_filter, "32999"),
    "complex": (lambda f, d: f.create_dataset("tensor", data=d * 1j), "complex64"),
    "integers": (lambda f, d: f.create_dataset("tensor", data=d.astype("i2")), "int16"),
    "text": (lambda f, d: f.create_dataset("tensor", data=np.full(d.shape, b"x")), "text"),
    "compound": (lambda f, d: f.create_dataset("tensor", data=np.zeros(d.shape, "f4,f4")), "compound"),
    "null space": (lambda f, d: f.create_dataset("tensor", data=h5py.Empty("f4")), "null data space"),
    "named type": (lambda f, d: f.__setitem__("tensor", np.dtype("f4")), "named type"),
    "group": (lambda f, d: f.create_group("tensor"), "group"),
    "cyclic group": (lambda f, d: f.__setitem__("tensor", f["/"]), "group"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_what_is_no_array_of_stored_numbers(sources, refused, case: str) -> None:
    make, words = TENSORS[case]
    path = edit(sources.burgers(), lambda file: moved(file, "tensor", make))
    with h5py.File(path.with_name("o.h5"), "w") as other:
        other["tensor"] = values(10, 5, 8)
    line = refused("burgers1d", "--pattern", f"1D/Burgers/Train/{path.name}")
    assert f"{path}: /tensor" in line
    assert words in line


def test_only_what_is_used_must_be_written(sources, out: Path) -> None:
    edit(sources.burgers(), lambda file: moved(file, "tensor", partly_written))
    convert_family("burgers1d", sources.root, out, Options(samples=6, verify=True))


@pytest.mark.parametrize("is_written", [True, False])
def test_frames_behind_the_end_of_a_killed_run_need_not_be_written(sources, out: Path, is_written) -> None:
    path = sources.navier_stokes(times=5, latest=2)
    last = 3 if is_written else 2

    def unwritten(file: h5py.File) -> None:
        data = file["velocity"][()]
        del file["velocity"]
        new = file.create_dataset("velocity", data.shape, "f4", chunks=(1, 1, 6, 4, 2))
        new[:, :last] = data[:, :last]

    edit(path, unwritten)
    if is_written:
        convert_family("navier_stokes2d", sources.root, out, Options(verify=True))
    else:
        with pytest.raises(ValueError, match="/velocity: sample 0 was never written"):
            convert_family("navier_stokes2d", sources.root, out, Options())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scale_factor", 0.001, "scale_factor"),
        ("add_offset", np.float32(1), "add_offset"),
        ("_FillValue", np.float32(9.96921e36), "missing"),
        ("missing_value", np.array([-999.0]), "missing"),
    ],
)
def test_attributes_that_change_values(sources, refused, name: str, value, words: str) -> None:
    def change(file: h5py.File) -> None:
        file["tensor"].attrs[name] = value
        if words == "missing":
            file["tensor"][7, 3, 2] = np.ravel(value)[0]

    path = edit(sources.burgers(), change)
    line = refused()
    assert str(path) in line
    assert words in line
    assert ("sample 7, time 3" in line) == (words == "missing")


@pytest.mark.parametrize(("name", "value"), [("scale_factor", 1.0), ("_FillValue", np.float32(9.9e36))])
def test_attributes_that_change_nothing(sources, out: Path, name: str, value) -> None:
    edit(sources.burgers(), lambda file: file["tensor"].attrs.update({name: value}))
    convert_family("burgers1d", sources.root, out, Options(verify=True))


@pytest.mark.parametrize("key", ["x-coordinate", "t-coordinate"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(np.full(8, b"a"), id="text"),
        pytest.param(np.arange(8) * 1j, id="complex"),
        pytest.param(np.zeros((8, 8, 8)), id="rank"),
        pytest.param(np.array([0, 1, 2, np.nan, 4, 5, 6, 7]), id="nan"),
        pytest.param(np.array([0, 1, 2, 3, 4, 5, np.inf, np.inf]), id="inf"),
        pytest.param(h5py.Empty("f4"), id="null space"),
    ],
)
def test_coordinates_that_are_none(sources, refused, key: str, data) -> None:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = data

    path = edit(sources.burgers(), change)
    assert f"{path}: /{key}" in refused()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (((np.arange(64) + 0.5) / 64) ** 2, "not uniform"),
        (np.linspace(0, 1, 64) + 0.0002 * (np.arange(64) == 30), "not uniform"),
        (-np.cos(np.pi * (np.arange(64) + 0.5) / 64), "not uniform"),
        (np.linspace(0, 1, 64), "both ends"),
        (np.linspace(-1, 1, 33), "both ends"),
        (np.linspace(0, 2 * np.pi, 33), "both ends"),
    ],
)
def test_grids_that_are_not_those_of_cells(sources, refused, x: np.ndarray, words: str) -> None:
    def change(file: h5py.File) -> None:
        del file["x-coordinate"]
        file["x-coordinate"] = x.astype("f4")

    path = edit(sources.burgers(points=len(x)), change)
    line = refused()
    assert f"{path}: /x-coordinate" in line
    assert words in line


def test_a_point_that_is_there_twice(sources, refused) -> None:
    """On a domain of odd length only the field tells that its last point repeats the first."""
    x = np.linspace(0, 1.37, 33)

    def change(file: h5py.File) -> None:
        del file["x-coordinate"]
        file["x-coordinate"] = x.astype("f4")
        phases = np.random.default_rng(0).random((10, 5, 1))
        file["tensor"][...] = np.sin(2 * np.pi * (x / 1.37 + phases))

    path = edit(sources.burgers(points=33), change)
    line = refused()
    assert str(path) in line
    assert "repeats the first" in line


def test_walls_may_hold_both_ends(sources, out: Path) -> None:
    def change(file: h5py.File) -> None:
        for key, num in (("x", 6), ("y", 4)):
            del file[f"{key}-coordinate"]
            file[f"{key}-coordinate"] = np.linspace(0, 1, num, dtype="f4")

    edit(sources.darcy(), change)
    convert_family("darcy2d", sources.root, out, Options())
    assert read_hdf5_info(out / "darcy2d_train.h5").metadata["length_x"] == 1.0


@pytest.mark.parametrize(
    ("family", "name", "value", "words"),
    [
        ("navier_stokes2d", "latestIndex", "none", "latestIndex"),
        ("navier_stokes2d", "latestIndex", np.array([1, 2]), "latestIndex"),
        ("navier_stokes2d", "latestIndex", 1.5, "latestIndex"),
        ("navier_stokes2d", "config", "[" * 5000, "config"),
        ("navier_stokes2d", "config", "&a [*a]", "config"),
        ("navier_stokes2d", "config", b"\xff\xfe", "config"),
        ("navier_stokes2d", "config", "{NU: 0.01, velocity_extrapolation: ZERO, grid_size: 5}", "grid_size"),
        (
            "navier_stokes2d",
            "config",
            "{NU: 1, velocity_extrapolation: ZERO, domain_size: [1]}",
            "domain_size",
        ),
        ("navier_stokes2d", "config", "{NU: 1, velocity_extrapolation: ZERO, domain_size: [1, 0]}", "domain"),
        ("navier_stokes2d", "config", "{NU: a, velocity_extrapolation: ZERO}", "nu (config)"),
        ("burgers1d", "Nu", 1j, "nu (attribute)"),
        ("burgers1d", "Nu", np.array([1.0, 2.0]), "nu (attribute)"),
        ("burgers1d", "Nu", "thick", "nu (attribute)"),
        ("burgers1d", "Nu", h5py.Empty("f8"), "nu (attribute)"),
    ],
)
def test_attributes_that_make_no_sense(sources, refused, family: str, name: str, value, words: str) -> None:
    path = edit(sources.family(family), lambda file: file.attrs.__setitem__(name, value))
    line = refused(family)
    assert str(path) in line
    assert words in line


FUZZ = """
import logging, os, signal, sys
from pathlib import Path
import numpy as np
from gust_torch.convert.families import get_family
from gust_torch.convert.source import describe_source, open_reader, plan_spans

logging.disable()
family, path, rng = get_family(sys.argv[1]), Path(sys.argv[2]), np.random.default_rng(1)
whole, refused = path.read_bytes(), 0
for _ in range(80):
    data = bytearray(whole)
    for position in rng.integers(0, min(len(data), 6000), rng.integers(1, 9)):
        data[position] = rng.integers(256)
    path.write_bytes(data)
    try:
        source = describe_source(path, family)
        with open_reader(source) as read:
            for span in plan_spans(source):
                read(*span)
    except ValueError as error:
        refused += 1
        if str(path) not in str(error) or len(str(error).splitlines()) != 1:
            raise
print(refused)
"""


@pytest.mark.parametrize("family", ["burgers1d", "shallow_water2d", "navier_stokes2d"])
def test_damage_anywhere_is_a_refusal(sources, family: str) -> None:
    path = sources.family(family)
    command = [sys.executable, "-c", FUZZ, family, str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) > 20


@pytest.mark.parametrize("link", [h5py.ExternalLink("o.h5", "/"), h5py.SoftLink("/nowhere")])
def test_sample_groups_that_are_elsewhere(sources, refused, link) -> None:
    def change(file: h5py.File) -> None:
        del file[GROUPS[2]]
        file[GROUPS[2]] = link

    path = edit(sources.family("shallow_water2d"), change)
    assert f"{path}: /{GROUPS[2]}" in refused("shallow_water2d")


@pytest.mark.parametrize("filters", [hdf5plugin.Zstd(), hdf5plugin.Blosc(), hdf5plugin.Bitshuffle()])
def test_filters_of_hdf5plugin_are_read(sources, out: Path, filters) -> None:
    """In a process that has not loaded them yet."""
    edit(
        sources.burgers(),
        lambda file: moved(file, "tensor", lambda f, d: f.create_dataset("tensor", data=d, **filters)),
    )
    command = "import sys; from gust_torch.convert.commands import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["burgers1d", "--root", str(sources.root), "--out", str(out), "--verify"]
    subprocess.run([sys.executable, "-c", command, *arguments], check=True)


@pytest.mark.parametrize("name", [f"._{NAME}", f".{NAME}", f".snapshot/{NAME}"])
def test_hidden_files_are_passed_over(sources, out: Path, capsys, name: str) -> None:
    path = sources.burgers()
    hidden = path.parent / name
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_bytes(b"\0\5\x16\7 Mac OS X")
    arguments = ["--root", str(sources.root), "--out", str(out)]
    assert main(["burgers1d", *arguments, "--pattern", "**/*.hdf5"]) == 0
    assert main(["burgers1d", *arguments, "--overwrite"]) == 0
    assert main_files(["--pattern", f"{path.parent}/*.hdf5", "--out", str(out / "a.h5")]) == 0
    path.unlink()
    assert main(["burgers1d", *arguments, "--overwrite"]) == 1
    assert "no files match" in capsys.readouterr().err


def test_a_copy_is_refused_by_both_commands(sources, refused, tmp_path: Path, capsys) -> None:
    path = sources.burgers()
    other = Path(shutil.copy(path, path.with_name("1D_Burgers_Sols_Nu0.01 (1).hdf5")))
    line = refused()
    assert path.name in line
    assert other.name in line
    assert main_files(["--pattern", f"{path.parent}/*.hdf5", "--out", str(tmp_path / "a.h5")]) == 1
    assert other.name in capsys.readouterr().err


LIMITED = """
import resource, sys
from gust_torch.convert.commands import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_a_file_size_limit_is_one_line_and_the_command_continues(sources, out: Path) -> None:
    for nu in (0.01, 0.1, 1.0):
        with sources.create(f"1D/Burgers/Train/1D_Burgers_Sols_Nu{nu}.hdf5") as file:
            file["tensor"] = values(10, 20, 256, seed=int(100 * nu))
            file["x-coordinate"], file["t-coordinate"] = centers(256), np.arange(20.0)
    arguments = ["burgers1d", "--root", str(sources.root), "--out", str(out)]
    command = [sys.executable, "-c", LIMITED, str(300_000), *arguments]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert stopped.returncode == 1, stopped.stderr
    lines = [line for line in stopped.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert "Traceback" not in stopped.stderr
    assert not list(out.glob("*.h5"))
    assert main([*arguments, "--verify"]) == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000
    assert sorted(os.listdir(out)) == [f"burgers1d_{split}.h5" for split in ("test", "train", "val")]
