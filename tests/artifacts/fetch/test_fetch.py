"""Fetching through the command: the cache, checks, room, what is said."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gust_torch.artifacts import fetch

Place = Any  # of conftest.py


def test_the_seeds_command(place: Place, run: Callable[..., str]) -> None:
    place.add()
    listed = "burgers1d_train.h5 burgers1d_val.h5 burgers1d_test.h5, 5.034 kB"
    assert run() == f"{place.name}: {listed}, {place.root}, fetched\n"
    assert place.content() == place.files
    assert run() == f"{place.name}: {listed}, {place.root}, up to date\n"
    shutil.rmtree(place.root)
    assert run("--offline", place.name) == f"{place.name}: {listed}, {place.root}, from cache\n"
    assert place.content() == place.files
    assert sorted(path.name for path in (place.root / ".gust").iterdir()) == [f"{place.name}.json"]


def test_stores_of_meshes(place: Place, run: Callable[..., str]) -> None:
    place.add(files=place.store)
    assert run().endswith("fetched\n")
    assert place.content() == place.store
    assert run().endswith("up to date\n")


def test_several_at_once(place: Place, run: Callable[..., str]) -> None:
    for index in range(6):
        place.add(f"d{index}", {f"d{index}_train.h5": b"x" * index * 999 + b"y"})
    names = [f"d{index}" for index in range(6)]
    assert [line.split(":")[0] for line in run(*names, names[0]).splitlines()] == names
    assert len(place.content()) == 6


def test_an_up_to_date_root_needs_neither_cache_nor_store(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    shutil.rmtree(place.cache)
    shutil.rmtree(place.folder / "store")
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")}
    assert run().endswith("up to date\n")
    assert {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")} == before


def test_a_second_run_imports_nothing_heavy(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    code = f"import sys, runpy; sys.argv = {['x', *place.arguments()]!r}\n"
    code += f"try: runpy.run_path({str(place.script)!r}, run_name='__main__')\n"
    code += "except SystemExit as end: assert not end.code\n"
    code += (
        "heavy = {'torch', 'lightning', 'numpy', 'h5py', 'zarr', 'fsspec', 's3fs', 'wandb', 'matplotlib'}\n"
    )
    code += "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_mismatch_removes_the_download(
    place: Place, run: Callable[..., str], refused: Callable[..., str]
) -> None:
    entry = place.add()
    tarball = place.folder / "store" / f"{place.name}.tar.gz"
    good = tarball.read_bytes()
    bad = good[:-20] + b"x" + good[-19:]
    tarball.write_bytes(bad)
    line = refused()
    assert entry.sha256 in line
    assert hashlib.sha256(bad).hexdigest() in line
    assert not place.root.exists()
    assert [path for path in place.cache.rglob("*") if path.is_file()] == []
    tarball.write_bytes(good)
    assert run().endswith("fetched\n")


def test_a_store_that_changed_between_two_runs(
    place: Place, run: Callable[..., str], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gust_torch.artifacts.download.PIECE_BYTES", 1000)
    monkeypatch.setattr("gust_torch.artifacts.download.ATTEMPTS", 1)
    entry = place.add(files={"burgers1d_train.h5": os.urandom(5000)})
    tarball = place.folder / "store" / f"{place.name}.tar.gz"
    good = tarball.read_bytes()

    def torn(spans: Sequence[tuple[int, int]]) -> list[bytes]:
        if spans[0][0] >= 3000:
            raise ValueError("the line is dead")
        return [bytes(stop - start) if start == 1000 else good[start:stop] for start, stop in spans]

    with monkeypatch.context() as patch:
        opened = fetch.open_reference
        patch.setattr(
            fetch, "open_reference", lambda *words, **named: replace(opened(*words, **named), read=torn)
        )
        assert "the line is dead; the same command continues" in refused(place.name, "--workers", "1")
    assert place.cached(entry).with_name(f"{place.name}.tar.gz.incomplete").is_file()
    assert "it was removed. Repeat the command" in refused()
    assert run().endswith("fetched\n")


def test_another_size_in_the_store(place: Place, refused: Callable[..., str]) -> None:
    place.add()
    with (place.folder / "store" / f"{place.name}.tar.gz").open("ab") as file:
        file.write(b"more")
    assert "in the store, the registry says" in refused()


@pytest.mark.parametrize("spoil", ["flip", "truncate", "empty"])
def test_a_damaged_cache_is_noticed(place: Place, run: Callable[..., str], spoil: str) -> None:
    entry = place.add()
    run()
    shutil.rmtree(place.root)
    cached = place.cached(entry)
    data = bytearray(cached.read_bytes())
    if spoil == "flip":
        times = cached.stat().st_atime_ns, cached.stat().st_mtime_ns
        data[30] ^= 1
        cached.write_bytes(data)
        os.utime(cached, ns=times)  # the same size and mtime: ctime tells
    else:
        cached.write_bytes(data[:-1] if spoil == "truncate" else b"")
    assert run().endswith("fetched\n")
    assert place.content() == place.files


def test_a_damaged_cache_offline(place: Place, run: Callable[..., str], refused: Callable[..., str]) -> None:
    entry = place.add()
    run()
    shutil.rmtree(place.root)
    place.cached(entry).write_bytes(b"damaged")
    assert "is not in the cache" in refused(place.name, "--offline")
    assert not place.cached(entry).exists()


def test_offline_with_an_empty_cache(
    place: Place, run: Callable[..., str], refused: Callable[..., str]
) -> None:
    entry = place.add()
    line = refused(place.name, "--offline")
    assert f"run the command once without --offline, or put the tarball at {place.cached(entry)}" in line
    place.cached(entry).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(place.folder / "store" / f"{place.name}.tar.gz", place.cached(entry))
    assert run(place.name, "--offline").endswith("from cache\n")


def test_two_names_for_the_same_bytes_share_the_cache(place: Place, run: Callable[..., str]) -> None:
    entry = place.add()
    run()
    place.register(replace(entry, name="again", artifact="file:///nowhere/x.tar.gz"))
    shutil.rmtree(place.root)
    assert run("again").endswith("from cache\n")


def test_unknown_names_and_broken_registries(place: Place, refused: Callable[..., str]) -> None:
    place.add()
    assert place.name in refused("burgers1d_subset_v2")
    place.registry.write_text("a: [")
    assert "registry.yaml" in refused()
    place.registry.unlink()
    assert "registry.yaml" in refused()


def test_workers_must_be_positive(place: Place, refused: Callable[..., str]) -> None:
    place.add()
    assert "--workers is 0" in refused(place.name, "--workers", "0")


@pytest.mark.parametrize("free", [0, 100, 6000])
def test_room_is_looked_for_first(
    place: Place, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    entry = place.add(files={"burgers1d_train.h5": os.urandom(4000)})
    assert 4000 < entry.size < 6000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    line = refused()
    assert "not enough room" in line
    assert f"in {place.cache} and 4 kB in {place.root}" in line  # on one disk, so both must fit together
    assert not place.cache.exists()
    assert not place.root.exists()


def test_room_for_what_is_missing_only(
    place: Place, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add(files={"burgers1d_train.h5": os.urandom(4000)})
    run()
    shutil.rmtree(place.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4000))
    assert run().endswith("from cache\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert run().endswith("up to date\n")


def test_an_entry_that_is_not_filled_in_stops_no_other(
    place: Place, run: Callable[..., str], refused: Callable[..., str]
) -> None:
    place.add()
    with place.registry.open("a") as file:
        file.write("later_v1: {artifact: <entity>/<project>/x:v0, kind: grid}\n")
    assert run().endswith("fetched\n")
    assert "later_v1: artifact is '<entity>/<project>/x:v0', a placeholder" in refused("later_v1")
    with place.registry.open("a") as file:
        file.write("later_v1: {}\n")
    assert "stands here again" in refused()


def test_one_failure_spares_the_others(
    place: Place, command: Callable[[list[str]], int], capfd: pytest.CaptureFixture[str]
) -> None:
    place.add("a", {"a_train.h5": b"a"})
    for name in ("gone", "lost"):
        place.add(name, {f"{name}_train.h5": b"x"})
        (place.folder / "store" / f"{name}.tar.gz").unlink()
    assert command(place.arguments("gone", "a", "lost")) == 1
    output, errors = capfd.readouterr()
    assert output == f"a: a_train.h5, 1 B, {place.root}, fetched\n"
    assert errors.splitlines()[-1].startswith("error: 2 of 3 datasets could not be fetched: ")
    assert "gone.tar.gz" in errors
    assert "lost.tar.gz" in errors


def test_without_a_name(capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int]) -> None:
    assert command([]) == 2
    assert "NAME ..." in capsys.readouterr().err


def test_help_is_quick(capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int]) -> None:
    with pytest.raises(SystemExit):
        command(["--help"])
    assert "--offline" in capsys.readouterr().out
