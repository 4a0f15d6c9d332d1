"""Whole conversions: contents, merging, all or nothing, continuation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.convert import conversion, output
from gust_torch.convert.commands import convert_family, convert_pattern
from gust_torch.convert.conversion import Plan
from gust_torch.convert.families import FAMILIES
from gust_torch.convert.output import Options, Result
from gust_torch.convert.source import open_reader
from solvers.common.files import WriterLock
from solvers.common.hdf5_utils import read_hdf5_info, validate

VERIFY = Options(verify=True)
OVERWRITE = Options(overwrite=True)


def total(result: Result, what: str) -> int:
    """Sum over the outputs."""
    return sum(counts[what] for counts in result.counts.values())


def trajectories(path: Path, field: str) -> dict[tuple[str, str], np.ndarray]:
    """(source, sample) -> (t, x, y[, c]) of one output."""
    with h5py.File(path) as file:
        ids = file["coordinates/trajectory"][:]
        origins = zip(
            file["trajectories/source"].asstr()[:], file["trajectories/sample"].asstr()[:], strict=True
        )
        return {origin: file[f"fields/{field}"][ids == index] for index, origin in enumerate(origins)}


def everything(folder: Path) -> dict[str, list]:
    """All values of all outputs below a folder, for comparison."""
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            for group in ("fields", "coordinates", "parameters", "trajectories", "split"):
                found |= {
                    f"{path.name}/{group}/{name}": np.asarray(item[()]).tolist()
                    for name, item in file[group].items()
                }
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_valid_disjoint_splits(sources, out: Path, family: str) -> None:
    sources.family(family)
    result = convert_family(family, sources.root, out, VERIFY)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{family}_{split}.h5" for split in result.outputs
    )
    assert list(result.outputs) == ["train", "val", "test"]
    seen = []
    for split, path in result.outputs.items():
        assert validate(path) == []
        info = read_hdf5_info(path)
        assert info.metadata["complete"]
        assert info.metadata["family"] == family
        assert info.num_trajectories == result.counts[split]["trajectories"]
        assert info.num_samples == result.counts[split]["frames"]
        seen += list(trajectories(path, next(iter(info.fields))))
    assert len(seen) == len(set(seen)) == total(result, "trajectories")


def test_sweep_keeps_parameters_and_sources(sources, out: Path) -> None:
    for seed, nu in enumerate((0.01, 0.1, 1.0)):
        sources.burgers(nu=nu, num=6, seed=seed)
    result = convert_family("burgers1d", sources.root, out, VERIFY)
    assert [counts["trajectories"] for counts in result.counts.values()] == [14, 2, 2]
    for path in result.outputs.values():
        with h5py.File(path) as file:
            names = file["trajectories/source"].asstr()[:]
            nu = file["parameters/nu"][:]
        assert list(names) == [f"1D/Burgers/Train/1D_Burgers_Sols_Nu{value}.hdf5" for value in nu]
        for (name, sample), values in trajectories(path, "u").items():
            with h5py.File(sources.root / name) as source:
                np.testing.assert_array_equal(values[..., 0], source["tensor"][int(sample)])


def test_manifest_in_every_file(sources, out: Path) -> None:
    sources.burgers()
    result = convert_family("burgers1d", sources.root, out, Options(seed=7))
    manifests = set()
    for split, path in result.outputs.items():
        with h5py.File(path) as file:
            text = file["split/manifest"].asstr()[()]
            manifests.add(text)
            samples = json.loads(text)["splits"][split]["1D/Burgers/Train/1D_Burgers_Sols_Nu0.01.hdf5"]
            assert samples == list(file["trajectories/sample"].asstr()[:])
            assert file["metadata"].attrs["split"] == split
    assert len(manifests) == 1
    assert json.loads(manifests.pop())["seed"] == 7


def test_metadata(sources, out: Path) -> None:
    sources.family("cfd1d")
    sources.family("navier_stokes2d")
    convert_family("cfd1d", sources.root, out, Options())
    convert_family("navier_stokes2d", sources.root, out, Options())
    cfd = read_hdf5_info(out / "cfd1d_train.h5").metadata
    assert (cfd["boundary_x"], cfd["boundary_y"], cfd["length_x"]) == ("periodic", "periodic", 2.0)
    assert (cfd["source_dtype"], cfd["dt"]) == ("float64", 0.05)
    flow = read_hdf5_info(out / "navier_stokes2d_train.h5")
    assert (flow.metadata["boundary_x"], flow.metadata["boundary_y"], flow.metadata["length_y"]) == (
        "wall",
        "wall",
        4.0,
    )
    assert "NU: 0.01" in flow.metadata["source_config"]
    assert "raw noise" in flow.metadata["note"]
    assert {name: shape for name, (shape, _) in flow.fields.items()} == {
        "velocity": (6, 4, 2),
        "particles": (6, 4),
        "force": (6, 4, 2),
    }


def test_limit_counts_files_and_samples_counts_trajectories_of_each(sources, out: Path) -> None:
    for nu in (0.01, 0.1, 1.0):
        sources.burgers(nu=nu)
    result = convert_family("burgers1d", sources.root, out, Options(limit=2, samples=4, verify=True))
    assert total(result, "trajectories") == 8
    with pytest.raises(ValueError, match="--samples is 0"):
        Options(samples=0)


def test_too_few_trajectories(sources, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources.burgers(num=2)
    result = convert_family("burgers1d", sources.root, out, VERIFY)
    assert list(result.outputs) == ["train", "val"]
    assert "2 trajectories leave none for the split 'test'" in caplog.text
    assert sorted(path.name for path in out.iterdir()) == ["burgers1d_train.h5", "burgers1d_val.h5"]


def test_overwrite_leaves_no_stale_split(sources, out: Path) -> None:
    sources.burgers(num=10)
    convert_family("burgers1d", sources.root, out, Options())
    sources.burgers(num=2)
    with pytest.raises(ValueError, match=r"burgers1d_test.h5 exists already; give --overwrite"):
        convert_family("burgers1d", sources.root, out, Options())
    convert_family("burgers1d", sources.root, out, OVERWRITE)
    assert sorted(path.name for path in out.iterdir()) == ["burgers1d_train.h5", "burgers1d_val.h5"]


def test_pattern_gives_one_file(sources, out: Path) -> None:
    sources.burgers(nu=0.01)
    sources.burgers(nu=0.1)
    pattern = str(sources.root / "1D/Burgers/Train/*.hdf5")
    result = convert_pattern(pattern, out / "all.h5", Options(splits=None, verify=True))
    assert [path.name for path in out.iterdir()] == ["all.h5"]
    assert read_hdf5_info(out / "all.h5").num_trajectories == 20
    assert result.counts == {"all": {"trajectories": 20, "frames": 100}}
    convert_pattern(pattern, out / "some.h5", Options(samples=5, verify=True))
    assert sorted(path.name for path in out.glob("some*")) == ["some_test.h5", "some_train.h5", "some_val.h5"]


def test_a_family_in_one_file(sources, out: Path) -> None:
    sources.burgers()
    convert_family("burgers1d", sources.root, out, Options(splits=None))
    assert [path.name for path in out.iterdir()] == ["burgers1d.h5"]


def test_pattern_with_renamed_file(sources, out: Path) -> None:
    path = sources.burgers().rename(sources.root / "mine.h5")
    with pytest.raises(ValueError, match="give --family"):
        convert_pattern(str(path), out / "a.h5", Options(splits=None))
    convert_pattern(str(path), out / "a.h5", Options(splits=None, verify=True), family="burgers1d")
    assert read_hdf5_info(out / "a.h5").parameters["nu"].tolist() == [0.01] * 10


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("1D/CFD/Train/1D_CFD_Rand_Eta0.1_Zeta0.1_trans_Train.hdf5", "wall instead of periodic"),
        ("1D/CFD/Train/1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train.hdf5", "(16, 1).*instead of.*(8, 1)"),
    ],
)
def test_sources_that_do_not_fit_are_refused(sources, out: Path, second: str, message: str) -> None:
    fields = "density pressure Vx"
    sources.cfd("1D/CFD/Train/1D_CFD_Rand_Eta0.01_Zeta0.01_periodic_Train.hdf5", fields, (4, 3, 8))
    sources.cfd(second, fields, (4, 3, 8 if "trans" in second else 16))
    with pytest.raises(ValueError, match=f"{message}.*--pattern"):
        convert_family("cfd1d", sources.root, out, Options())
    assert not out.exists()
    convert_family("cfd1d", sources.root, out, VERIFY, pattern="1D/CFD/Train/*Eta0.01*")


def test_trajectories_of_different_length_merge(sources, out: Path) -> None:
    sources.navier_stokes(seed=0, times=5)
    sources.navier_stokes(seed=1, times=5, latest=2)
    result = convert_family("navier_stokes2d", sources.root, out, VERIFY)
    assert total(result, "frames") == 3 * 5 + 3 * 3


def test_no_files(sources, out: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        convert_family("burgers1d", sources.root, out, Options())
    sources.root.mkdir()
    with pytest.raises(ValueError, match="no files match 1D/Burgers/Train"):
        convert_family("burgers1d", sources.root, out, Options())


def test_wrong_paths(sources, out: Path) -> None:
    path = sources.burgers()
    with pytest.raises(ValueError, match="expected a glob below --root"):
        convert_family("burgers1d", sources.root, out, Options(), pattern=str(path))
    whole = Options(splits=None, overwrite=True)
    with pytest.raises(ValueError, match="is one of the sources"):
        convert_pattern(str(path), path, whole)
    with pytest.raises(ValueError, match="is a folder"):
        convert_pattern(str(path), sources.root, whole)


def test_refusal_in_the_data_leaves_nothing(sources, out: Path) -> None:
    sources.burgers(nu=0.01)
    with h5py.File(sources.burgers(nu=0.1), "r+") as file:
        file["tensor"][9, 4, 7] = np.nan
    with pytest.raises(ValueError, match="sample 9, time 4"):
        convert_family("burgers1d", sources.root, out / "deep", Options())
    assert not out.exists()


def test_refusal_keeps_older_outputs(sources, out: Path) -> None:
    sources.burgers()
    convert_family("burgers1d", sources.root, out, Options())
    before = everything(out)
    with h5py.File(sources.burgers(seed=1), "r+") as file:
        file["tensor"][0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="field 'u' is inf"):
        convert_family("burgers1d", sources.root, out, OVERWRITE)
    assert everything(out) == before
    assert len(list(out.iterdir())) == 3


def interrupt(patch: pytest.MonkeyPatch, source: int, action: Callable[[], object]) -> None:
    """Act in the midst of a source."""
    parts = Plan.parts

    def interrupted(plan: Plan, index: int):
        for number, part in enumerate(parts(plan, index)):
            if (index, number) == (source, 1):
                action()
            yield part

    patch.setattr(Plan, "parts", interrupted)


def _full_disk() -> None:
    raise OSError("no space left on device")


@pytest.fixture
def sweep(sources, tmp_path: Path) -> dict[str, list]:
    """Three sources, and what their uninterrupted conversion gives."""
    for seed, nu in enumerate((0.01, 0.1, 1.0)):
        sources.burgers(nu=nu, num=6, seed=seed)
    convert_family("burgers1d", sources.root, tmp_path / "reference", Options())
    return everything(tmp_path / "reference")


def test_continues_behind_the_last_finished_file(sources, out: Path, sweep, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 2, _full_disk)
        with pytest.raises(OSError, match="no space left"):
            convert_family("burgers1d", sources.root, out, Options())
    assert [path.name for path in out.iterdir()] == [".burgers1d.part"]
    read = []
    monkeypatch.setattr(
        conversion, "open_reader", lambda source: read.append(source.name[-8:]) or open_reader(source)
    )
    convert_family("burgers1d", sources.root, out, Options())
    assert read == ["1.0.hdf5"]
    assert everything(out) == sweep
    assert len(list(out.iterdir())) == 3


def test_unfinished_conversion_of_something_else(sources, out: Path, sweep, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 2, _full_disk)
        with pytest.raises(OSError, match="no space left"):
            convert_family("burgers1d", sources.root, out, Options(seed=1))
    with pytest.raises(ValueError, match=r"seed: 1 there, 0 now.*--overwrite"):
        convert_family("burgers1d", sources.root, out, Options())
    convert_family("burgers1d", sources.root, out, OVERWRITE)
    assert everything(out) == sweep


def test_signal_stops_between_blocks_and_the_next_call_continues(
    sources, out: Path, sweep, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        result = convert_family("burgers1d", sources.root, out, Options())
    assert result.exit_code == 143
    assert not list(out.glob("*.h5"))
    assert convert_family("burgers1d", sources.root, out, VERIFY).exit_code == 0
    assert everything(out) == sweep


def test_one_conversion_at_a_time(sources, out: Path) -> None:
    sources.burgers()
    out.mkdir()
    other = WriterLock(out / ".burgers1d.part")
    with pytest.raises(BlockingIOError, match="another process"):
        convert_family("burgers1d", sources.root, out, Options(overwrite=True))
    other.release()
    convert_family("burgers1d", sources.root, out, VERIFY)


KILLED = """
import os, signal, sys
from pathlib import Path
from gust_torch.convert.commands import convert_family
from gust_torch.convert.conversion import Plan
from gust_torch.convert.output import Options
parts = Plan.parts
def killed(plan, index):
    for number, part in enumerate(parts(plan, index)):
        if (index, number) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        yield part
Plan.parts = killed
convert_family("burgers1d", Path(sys.argv[1]), Path(sys.argv[2]), Options())
"""


def test_killed_process_leaves_no_target_and_is_continued(sources, out: Path, sweep) -> None:
    command = [sys.executable, "-c", KILLED, str(sources.root), str(out)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list(out.glob("*.h5"))
    assert json.loads((out / ".burgers1d.part/stage.json").read_text())["progress"]["finished"] == 2
    convert_family("burgers1d", sources.root, out, VERIFY)
    assert everything(out) == sweep


def test_killed_between_the_renames(sources, out: Path, sweep, monkeypatch) -> None:
    real = os.replace

    def replace(source, target) -> None:
        if Path(target) == out / "burgers1d_val.h5":
            raise OSError("killed")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(output.os, "replace", replace)
        with pytest.raises(OSError, match="killed"):
            convert_family("burgers1d", sources.root, out, Options())
    assert (out / "burgers1d_train.h5").exists()
    convert_family("burgers1d", sources.root, out, Options())
    assert everything(out) == sweep
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        ("fields/u", (3, 1, 0), "fields/u, samples"),
        ("coordinates/time", 1, "coordinates/time, samples"),
        ("parameters/nu", 0, "parameters differ"),
        ("trajectories/sample", 0, "trajectories/sample"),
    ],
)
def test_verify_finds_every_difference(
    sources, out: Path, monkeypatch, name: str, index, message: str
) -> None:
    verify = conversion.verify

    def damaged(plan, paths) -> None:
        with h5py.File(paths["train"], "r+") as file:
            item = file[name]
            item[index] = "x" if name.startswith("traj") else np.nextafter(item[index], item.dtype.type(1))
        verify(plan, paths)

    sources.burgers()
    monkeypatch.setattr(conversion, "verify", damaged)
    with pytest.raises(ValueError, match=message):
        convert_family("burgers1d", sources.root, out, VERIFY)
    assert not out.exists()


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_compression(sources, out: Path, compression: str) -> None:
    sources.family("cfd2d")
    convert_family("cfd2d", sources.root, out, Options(compression=compression, verify=True))
    with h5py.File(out / "cfd2d_train.h5") as file:
        assert file["fields/Vx"].id.get_create_plist().get_nfilters() > 0
