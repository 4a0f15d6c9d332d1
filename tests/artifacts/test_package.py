"""Packages: the same bytes twice, readable by everything, and nothing half-written, invalid or changing."""

import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from gust_torch.artifacts import package as package_module
from gust_torch.artifacts.package import PackageOptions, package
from gust_torch.artifacts.registry import check_registry, load_registry
from gust_torch.artifacts.unpack import unpack as extract
from solvers.common.hdf5_utils import HDF5Writer

NAME = "burgers1d_subset_v1"
TRAJECTORIES = {"train": 3, "val": 2, "test": 1}


def pack(name: str, root: Path, **options: object) -> SimpleNamespace:
    """Pack with some options; tells the entry, the two files, and whether they were written."""
    manifest = Path(options.get("out", "artifacts")) / f"{name}.manifest.json"
    before = manifest.stat().st_mtime_ns if manifest.exists() else 0
    entry, tarball = package(PackageOptions(name, root, **options))
    written = manifest.stat().st_mtime_ns != before
    return SimpleNamespace(draft=entry, tarball=tarball, manifest=manifest, written=written)


def write_grid(
    path: Path, *, num: int = 2, times: int = 3, shape: tuple[int, int] = (16, 1), **kwargs: bool
) -> Path:
    """Return a file of the common format with a last trajectory that is one frame shorter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(num)
    metadata = {
        "solver": "pdebench",
        "family": "burgers1d",
        "boundary_x": "periodic",
        "boundary_y": "periodic",
        "grid_y": "uniform",
        "package_version": "0.1.0",
        "git_commit": "0" * 40,
        "reynolds": float("nan"),
    }
    writer = HDF5Writer(
        path,
        fields={"u": shape},
        coordinates={"x": np.arange(shape[0], dtype="f4"), "y": np.arange(shape[1], dtype="f4")},
        metadata=metadata,
        parameters={"nu": [0.1] * num},
        overwrite=True,
    )
    for trajectory in range(num):
        count = times - (trajectory == num - 1 and num > 1)
        for step in range(count):
            frame = generator.standard_normal(shape)
            writer.append({"u": frame}, time=0.1 * step, trajectory=trajectory)
    writer.close(complete=kwargs.get("complete", True))
    return path


def write_store(path: Path, *, reverse: bool = False) -> Path:
    """Return a ragged mesh store; the order in which its files are written does not show in its bytes."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w").create_group("mesh_poisson")
    group.attrs.update(RAGGED)
    for name in sorted(("coords", "coords-2"), reverse=reverse):
        group.create_array(name, data=np.arange(1.0, 3000.0).reshape(-1, 1), chunks=(2000, 1))
    return path


RAGGED: dict[str, object] = {
    "layout": "ragged",
    "version": 1,
    "kind": "mesh",
    "num_samples": 4,
    "axes": {"coords": "node", "edges": "edge", "pressure": "node", "beta": "sample"},
    "seed": 3,
    "git_commit": "1" * 40,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three splits of a grid, with other files beside them."""
    root = tmp_path / "data"
    for split, num in TRAJECTORIES.items():
        write_grid(root / f"burgers1d_{split}.h5", num=num)
    write_grid(root / "burgers1d_long_train.h5", times=5)
    (root / "notes.txt").write_text("not packed")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def main(script: Callable[[str], Callable[[list[str]], int]]) -> Callable[[list[str]], int]:
    return script("package_dataset")


def test_contents(root: Path, out: Path) -> None:
    result = pack(NAME, root, out=out)
    assert result.written
    assert (result.draft.kind, result.tarball) == ("grid", out / f"{NAME}.tar.gz")
    assert result.draft.metadata == {
        "samples": 6,
        "resolution": [3, 16],
        "fields": ["u"],
        "parameters": ["nu"],
    }
    assert result.draft.sha256 == hashlib.sha256(result.tarball.read_bytes()).hexdigest()
    assert result.draft.size == result.tarball.stat().st_size
    with tarfile.open(result.tarball) as tar:
        members = tar.getmembers()
        assert [item.name for item in members] == [f"burgers1d_{split}.h5" for split in TRAJECTORIES]
        assert {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
            (0o644, 0, 0, "", "", 0)
        }
        for item in members:
            assert tar.extractfile(item).read() == (root / item.name).read_bytes()
        assert result.draft.unpacked == sum(item.size for item in members)
    assert sorted(item.name for item in out.iterdir()) == [f"{NAME}.manifest.json", f"{NAME}.tar.gz"]


def test_manifest(root: Path, out: Path) -> None:
    result = pack(NAME, root, out=out)
    manifest = json.loads(result.manifest.read_text())
    assert manifest["format_version"] == 1
    assert (manifest["name"], manifest["task"], manifest["kind"]) == (NAME, "burgers1d", "grid")
    assert manifest["splits"] == {split: f"burgers1d_{split}.h5" for split in TRAJECTORIES}
    assert manifest["tarball"]["sha256"] == result.draft.sha256
    assert (manifest["tarball"]["size"], manifest["tarball"]["unpacked"]) == (
        result.draft.size,
        result.draft.unpacked,
    )
    for item in manifest["files"]:
        data = (root / item["path"]).read_bytes()
        assert (item["size"], item["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    train = manifest["sources"]["train"]
    assert (train["format"], train["format_version"], train["trajectories"], train["frames"]) == (
        "hdf5",
        1,
        3,
        8,
    )
    assert (train["provenance"]["family"], train["provenance"]["git_commit"]) == ("burgers1d", "0" * 40)
    assert train["provenance"]["reynolds"] == "nan"
    assert set(manifest["provenance"]) == {"package_version", "git_commit"}
    assert str(root.parent) not in result.manifest.read_text()


def test_same_bytes(tmp_path: Path) -> None:
    """From another folder, with other times, modes and threads, written in another order."""
    first, second = tmp_path / "one", tmp_path / "two" / "deeper"
    shape = (256, 256)  # several blocks
    write_grid(first / "burgers1d_train.h5", shape=shape)
    for split in ("train", "val"):
        write_store(first / f"darcy2d_mesh_{split}.zarr")
    old = os.umask(0o077)
    try:
        second.mkdir(parents=True)
        for split in ("val", "train"):
            write_store(second / f"darcy2d_mesh_{split}.zarr", reverse=True)
        shutil.copyfile(first / "burgers1d_train.h5", tmp_path / "real.h5")
        (second / "burgers1d_train.h5").symlink_to(tmp_path / "real.h5")
        for path in second.rglob("*"):
            os.utime(path, (1, 1))
        results = [
            (
                pack(NAME, first, out=tmp_path / "a", workers=1),
                pack(NAME, second, out=tmp_path / "b", workers=5),
            ),
            (
                pack("darcy2d_mesh", first, out=tmp_path / "a"),
                pack("darcy2d_mesh", second, out=tmp_path / "b"),
            ),
        ]
    finally:
        os.umask(old)
    for one, two in results:
        assert one.tarball.read_bytes() == two.tarball.read_bytes()
        assert one.manifest.read_bytes() == two.manifest.read_bytes()
        assert one.draft.to_yaml() == two.draft.to_yaml()


def test_stores(tmp_path: Path, out: Path) -> None:
    for split in ("train", "val"):
        write_store(tmp_path / f"darcy2d_mesh_{split}.zarr")
    write_grid(tmp_path / "darcy2d_train.h5")  # a shorter task that the name begins with, too
    result = pack("darcy2d_mesh_v1", tmp_path, out=out)
    assert result.draft.kind == "mesh"
    assert result.draft.splits == {"train": "darcy2d_mesh_train.zarr", "val": "darcy2d_mesh_val.zarr"}
    assert result.draft.metadata == {"samples": 8, "fields": ["pressure"], "parameters": ["beta"]}
    with tarfile.open(result.tarball) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == sorted((m.name for m in members), key=lambda name: name.split("/"))
    assert {m.mode for m in members if m.isdir()} == {0o755}
    listing = json.loads(result.manifest.read_text())["files"]
    assert [item["path"] for item in listing] == [m.name for m in members]
    assert {item["path"] for item in listing if "sha256" not in item} == {
        m.name for m in members if m.isdir()
    }
    source = json.loads(result.manifest.read_text())["sources"]["val"]
    assert (source["format"], source["format_version"], source["provenance"]["seed"]) == ("zarr ragged", 1, 3)


def test_stores_of_the_converters(tmp_path: Path, out: Path) -> None:
    pytest.importorskip("zarr")
    from gust_torch.convert.graphs import convert_graphs
    from gust_torch.convert.output import Options
    from gust_torch.data.graphs.synthetic import random_mesh

    for index in range(4):
        arrays = random_mesh(10 + index, index)
        (tmp_path / "raw").mkdir(exist_ok=True)
        np.savez(tmp_path / "raw" / f"{index}.npz", **arrays, pressure=arrays["coords"][:, 0])
    convert_graphs("darcy2d_mesh", tmp_path / "raw", tmp_path, Options(splits=(0.5, 0.5, 0.0)))
    result = pack("darcy2d_mesh_v1", tmp_path, out=out)
    assert result.draft.metadata == {"samples": 4, "fields": ["pressure"]}
    (tmp_path / "unpacked").mkdir()
    members = tuple(result.draft.splits.values())
    extract(
        result.tarball,
        tmp_path / "unpacked",
        members=members,
        unpacked=result.draft.unpacked,
        count=lambda size: None,
    )
    for path in tmp_path.glob("*.zarr/**/*"):
        assert (
            path.is_dir()
            or path.read_bytes() == (tmp_path / "unpacked" / path.relative_to(tmp_path)).read_bytes()
        )


@pytest.mark.parametrize("reader", ["tar", "stream", "fetch"])
def test_readers(root: Path, out: Path, tmp_path: Path, reader: str) -> None:
    write_grid(root / "burgers1d_train.h5", shape=(256, 256))
    write_grid(root / "burgers1d_val.h5", shape=(256, 256))
    result = pack(NAME, root, out=out, splits=["train", "val"], workers=3)
    target = tmp_path / "unpacked"
    target.mkdir()
    if reader == "tar":
        if shutil.which("tar") is None:
            pytest.skip("no tar")
        subprocess.run(["tar", "-xzf", str(result.tarball), "-C", str(target)], check=True)
    elif reader == "stream":
        with result.tarball.open("rb") as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
            for member in tar:
                (target / member.name).write_bytes(tar.extractfile(member).read())
    else:
        members = tuple(result.draft.splits.values())
        extract(
            result.tarball, target, members=members, unpacked=result.draft.unpacked, count=lambda size: None
        )
    for member in result.draft.splits.values():
        assert (target / member).read_bytes() == (root / member).read_bytes()


def test_twice(root: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = pack(NAME, root, out=out)
    stamps = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    with caplog.at_level("INFO", "gust_torch"):
        second = pack(NAME, root, out=out, overwrite=True)
    assert "has these files already; nothing to do" in caplog.text
    assert not second.written
    assert second.draft.to_yaml() == first.draft.to_yaml()
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == stamps


@pytest.mark.parametrize("damage", ["other file", "tarball", "no manifest", "manifest", "other recipe"])
def test_another_package_is_kept(root: Path, out: Path, damage: str) -> None:
    result = pack(NAME, root, out=out)
    good = result.tarball.read_bytes()
    manifest = result.manifest.read_text()
    if damage == "other file":
        write_grid(root / "burgers1d_val.h5", times=4)
    elif damage == "tarball":
        result.tarball.write_bytes(good[:-1] + b"\x01")
    elif damage == "no manifest":
        result.manifest.unlink()
    else:
        result.manifest.write_text(
            {"manifest": "[]", "other recipe": manifest.replace('"level": 1', '"level": 0')}[damage]
        )
    before = result.tarball.read_bytes()
    with pytest.raises(
        ValueError, match="has other contents, or its manifest does not fit it; give --overwrite"
    ):
        pack(NAME, root, out=out)
    assert result.tarball.read_bytes() == before
    replaced = pack(NAME, root, out=out, overwrite=True)
    assert replaced.written
    assert (replaced.tarball.read_bytes() == good) == (damage != "other file")
    assert not pack(NAME, root, out=out).written


def test_after_a_kill(root: Path, out: Path) -> None:
    """What a killed run leaves: a part of the tarball, and perhaps a manifest that fits nothing yet."""
    result = pack(NAME, root, out=out)
    good = result.tarball.read_bytes()
    result.tarball.rename(result.tarball.with_name(f".{result.tarball.name}.part"))
    (out / f".{NAME}.tar.gz.lock").touch()
    assert pack(NAME, root, out=out).written
    assert result.tarball.read_bytes() == good
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize("when", ["longer", "shorter", "rewritten", "gone", "new member"])
def test_changing_files(tmp_path: Path, out: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_store(tmp_path / "darcy2d_mesh_train.zarr")
    chunk = store / "mesh_poisson/coords/c/0/0"
    old = chunk.read_bytes()

    listed = package_module.list_members

    def change(paths: Iterable[Path]) -> list[package_module.Member]:
        """Let something change once all is listed."""
        members = listed(paths)
        monkeypatch.undo()
        {
            "longer": lambda: chunk.write_bytes(old + b"x"),
            "shorter": lambda: chunk.write_bytes(old[:-1]),
            "rewritten": lambda: chunk.write_bytes(old[::-1]),
            "gone": (store / "mesh_poisson/coords-2/zarr.json").unlink,
            "new member": (store / "x").touch,
        }[when]()
        return members

    monkeypatch.setattr(package_module, "list_members", change)
    with pytest.raises((ValueError, FileNotFoundError), match=r"changed while it was packed|No such file"):
        pack("darcy2d_mesh", tmp_path, out=out)
    assert list(out.iterdir()) == []


def test_full_disk(
    root: Path, out: Path, main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for split in TRAJECTORIES:
        write_grid(root / f"burgers1d_{split}.h5", shape=(256, 256))
    result = pack(NAME, root, out=out, splits=["test"])
    before = {path: path.read_bytes() for path in out.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # writes fail as on a full disk
    try:
        code = main([NAME, "--root", str(root), "--out", str(out), "--overwrite"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {result.tarball}: file too large")
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(
    root: Path,
    out: Path,
    main: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    write_grid(root / "burgers1d_train.h5", shape=(256, 256), num=20)
    monkeypatch.setattr(
        package_module, "byte_progress", lambda *words: nullcontext(lambda size: os.kill(os.getpid(), number))
    )
    code = main([NAME, "--splits", "train", "--root", str(root), "--out", str(out)])
    assert code == 128 + number, capsys.readouterr().err
    assert capsys.readouterr().err == "stopped; nothing was written\n"
    assert list(out.iterdir()) == []


def test_command(
    root: Path,
    out: Path,
    tmp_path: Path,
    main: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [NAME, "--root", str(root), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    values = yaml.safe_load(printed.out)[NAME]
    assert values["artifact"] == "<entity>/<project>/burgers1d-subset:v0"
    assert values["metadata"] == {"samples": 6, "resolution": [3, 16], "fields": ["u"], "parameters": ["nu"]}
    registry = root / "dataset_registry.yaml"  # beside the data: a tracked file would make all else dirty
    registry.write_text(printed.out)
    (problem,) = check_registry(registry)
    assert "a placeholder" in problem
    rest = ["--register", "--artifact", "me/sims/burgers1d-subset:v3"]
    assert main([*command, *rest]) == 1
    assert "has another 'burgers1d_subset_v1'; give --overwrite" in capsys.readouterr().err
    assert main([*command, *rest, "--overwrite", "--metadata", '{"samples": 20}']) == 0
    assert yaml.safe_load(capsys.readouterr().out)[NAME]["metadata"] == {"samples": 20}
    entry = load_registry(registry)[NAME]
    assert entry.artifact == "me/sims/burgers1d-subset:v3"
    assert entry.metadata == {"samples": 20}
    assert registry.read_text() == entry.to_yaml()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--register"], "--register needs --artifact"),
        (["--artifact", "<entity>/p/b:v0"], "is '<entity>/p/b:v0', a placeholder"),
        (["--artifact", "b"], "without a version"),
        (["--metadata", "{samples: 20}"], "--metadata is no JSON"),
        (["--metadata", "[1]"], "expected a JSON object"),
        (["--metadata", '{"a": NaN}'], "a is nan"),
        (["--workers", "0"], "expected workers >= 1"),
        (
            ["--task", "cfd2d"],
            "cfd2d_train.h5, cfd2d_val.h5, cfd2d_test.h5 (or .zarr); convert the task",
        ),
    ],
)
def test_wrong_arguments(
    root: Path,
    out: Path,
    main: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert main([NAME, "--root", str(root), "--out", str(out), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert not out.exists()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 7])
@pytest.mark.parametrize("kind", ["zeros", "fields", "noise"])
@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_gzip(size: int, kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any gunzip reads it, and its bytes do not depend on the number of threads."""
    if library == "zlib":
        monkeypatch.setattr(package_module, "igzip_threaded", None)
    data = {
        "zeros": lambda: bytes(size),
        "fields": lambda: np.sin(np.arange(size // 4 + 1) / 50, dtype="f4").tobytes()[:size],
        "noise": lambda: np.random.default_rng(0).bytes(size),
    }[kind]()

    def compressed(workers: int) -> bytes:
        file = io.BytesIO()
        with package_module._open_gzip(file, workers) as stream:
            for start in range(0, size, 1 << 20):  # as tarfile writes, whatever it reads
                stream.write(data[start : start + (1 << 20)])
        return file.getvalue()

    found = compressed(1)
    assert gzip.decompress(found) == data
    assert found == compressed(2) == compressed(5)
    bound = {"zeros": 0.01, "fields": 0.95, "noise": 1.001}[kind]
    assert len(found) < bound * size + 100


def test_large_members_and_long_names() -> None:
    """Sizes above 8 GiB and names above 100 bytes need headers of their own."""
    member = package_module.Member("ü" * 120, Path("x"), 20 << 30, (1,))
    header = io.BytesIO(package_module.header(member).tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    with tarfile.open(fileobj=header) as tar:
        info = tar.next()
    assert (info.name, info.size, info.mtime) == (member.name, 20 << 30, 0)
