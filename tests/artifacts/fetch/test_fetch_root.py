"""What a fetch does to the root: files in the way, links, receipts, stops half-way."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gust_torch.artifacts import fetch as fetch_root

Place = Any  # of conftest.py


@pytest.mark.parametrize("change", ["content", "same size", "file for a folder", "folder for a file", "link"])
def test_a_changed_file_is_kept(
    place: Place, run: Callable[..., str], refused: Callable[..., str], change: str
) -> None:
    files = place.store if change == "file for a folder" else place.files
    place.add(files=files)
    run()
    target = place.root / next(iter(files)).partition("/")[0]
    victim = place.folder / "victim"
    victim.write_text("untouched")
    match change:
        case "content":
            target.write_bytes(b"mine")
        case "same size":
            target.write_bytes(b"x" * target.stat().st_size)
        case "file for a folder":
            shutil.rmtree(target)
            target.write_bytes(b"mine")
        case "folder for a file":
            target.unlink()
            (target / "mine").mkdir(parents=True)
        case "link":
            target.unlink()
            target.symlink_to(victim)
    assert f"{target} has changed since it was fetched; give --overwrite" in refused()
    assert run(place.name, "--overwrite").endswith("from cache\n")
    assert place.content() == files
    assert not target.is_symlink()
    assert victim.read_text() == "untouched"
    assert run().endswith("up to date\n")


def test_a_store_with_one_changed_chunk(
    place: Place, run: Callable[..., str], refused: Callable[..., str]
) -> None:
    place.add(files=place.store)
    run()
    (place.root / "darcy2d_mesh_train.zarr" / "new").touch()
    assert "has changed" in refused()
    run(place.name, "--overwrite")
    assert place.content() == place.store


def test_a_removed_file_comes_back(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    (place.root / "burgers1d_val.h5").unlink()
    assert run().endswith("from cache\n")
    assert place.content() == place.files


def test_a_stranger_is_kept(place: Place, run: Callable[..., str], refused: Callable[..., str]) -> None:
    place.add()
    place.root.mkdir()
    (place.root / "burgers1d_val.h5").write_bytes(b"mine")
    (place.root / "other.h5").write_bytes(b"mine too")
    assert "burgers1d_val.h5 exists already and was not fetched; give --overwrite" in refused()
    assert place.content() == {"burgers1d_val.h5": b"mine", "other.h5": b"mine too"}
    (place.root / "burgers1d_val.h5").write_bytes(b"mine" * 9999)
    shutil.rmtree(place.cache)
    assert "burgers1d_val.h5 exists already" in refused()
    assert not place.cache.exists()  # it cannot be the same: said before anything is downloaded
    run(place.name, "--overwrite")
    assert place.content() == {**place.files, "other.h5": b"mine too"}


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_a_link_in_the_way_is_replaced_and_not_followed(
    place: Place, run: Callable[..., str], refused: Callable[..., str], kind: str
) -> None:
    files = place.store if kind == "folder" else place.files
    place.add(files=files)
    outside = place.folder / "outside"
    if kind == "folder":
        outside.mkdir()
        (outside / "keep").write_text("untouched")
    elif kind == "file":
        outside.write_text("untouched")
    place.root.mkdir()
    target = place.root / next(iter(files)).partition("/")[0]
    target.symlink_to(outside)
    assert "exists already" in refused()
    run(place.name, "--overwrite")
    assert not target.is_symlink()
    assert place.content() == files
    if kind == "folder":
        assert [path.name for path in outside.iterdir()] == ["keep"]
    else:
        assert outside.read_text() == "untouched" if kind == "file" else not outside.exists()


def test_a_state_folder_that_is_a_link(place: Place, refused: Callable[..., str]) -> None:
    place.add()
    place.root.mkdir()
    (place.folder / "outside").mkdir()
    (place.root / ".gust").symlink_to(place.folder / "outside")
    assert ".gust is a link; remove it" in refused()
    assert list((place.folder / "outside").iterdir()) == []


def test_a_staging_folder_that_is_a_link(place: Place, run: Callable[..., str]) -> None:
    place.add()
    (place.root / ".gust").mkdir(parents=True)
    (place.folder / "outside" / "files").mkdir(parents=True)
    (place.root / ".gust" / f"{place.name}.part").symlink_to(place.folder / "outside")
    run()
    assert place.content() == place.files
    assert list((place.folder / "outside").rglob("*")) == [place.folder / "outside" / "files"]


def test_a_new_version_asks_first(place: Place, run: Callable[..., str], refused: Callable[..., str]) -> None:
    place.add()
    run()
    newer = {**place.files, "burgers1d_train.h5": b"better"}
    place.add(files=newer)
    assert f"belongs to {place.name}; give --overwrite" in refused()
    assert run(place.name, "--overwrite").endswith("fetched\n")
    assert place.content() == newer


def test_two_datasets_with_the_same_file(
    place: Place, run: Callable[..., str], refused: Callable[..., str]
) -> None:
    place.add("first")
    place.add("second", {**place.files, "burgers1d_val.h5": b"second"})
    assert "first and second both hold burgers1d_train.h5; fetch one with another --root" in refused(
        "first", "second", "--overwrite"
    )
    run("first")
    assert "burgers1d_train.h5 belongs to first; give --overwrite" in refused("second")
    run("second", "--overwrite")
    assert (place.root / "burgers1d_val.h5").read_bytes() == b"second"
    assert "belongs to second" in refused("first")


def test_a_hostile_tarball_leaves_nothing(place: Place, refused: Callable[..., str]) -> None:
    entry = place.add()
    tarball = place.folder / "store" / f"{place.name}.tar.gz"
    with tarfile.open(tarball, "w:gz") as tar:
        for name in (*place.files, "../escaped"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    data = tarball.read_bytes()
    place.register(replace(entry, sha256=hashlib.sha256(data).hexdigest(), size=len(data)))
    assert "'../escaped'" in refused()
    assert place.content() == {}
    assert [path.name for path in (place.root / ".gust").iterdir()] == []
    assert not (place.folder / "escaped").exists()


def test_a_kill_between_two_renames_is_continued(
    place: Place, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add()
    renames = 0
    real = os.replace

    def dying(source: Path, target: Path) -> None:
        nonlocal renames
        renames += "files" in Path(source).parts
        if renames == 2:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(fetch_root.os, "replace", dying)
        with contextlib.suppress(AssertionError):
            run()
    assert list(place.content()) == ["burgers1d_train.h5"]
    assert run().endswith("from cache\n")  # the moved file is known as ours
    assert place.content() == place.files
    assert run().endswith("up to date\n")


def test_what_a_kill_in_the_last_moment_leaves(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    (place.root / ".gust" / f"{place.name}.part" / "old").mkdir(parents=True)
    assert run().endswith("up to date\n")
    assert [path.name for path in (place.root / ".gust").iterdir()] == [f"{place.name}.json"]


def test_a_kill_while_unpacking_starts_that_again(place: Place, run: Callable[..., str]) -> None:
    place.add()
    part = place.root / ".gust" / f"{place.name}.part" / "files"
    part.mkdir(parents=True)
    (part / "burgers1d_train.h5").write_bytes(b"half")
    run()
    assert place.content() == place.files
    assert not part.exists()


def test_a_full_disk_while_unpacking(
    place: Place, run: Callable[..., str], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add()
    with monkeypatch.context() as patch:

        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(fetch_root.os, "fsync", full)
        assert "no space left on device" in refused().lower()
    assert place.content() == {}
    assert run().endswith(("from cache\n", "fetched\n"))


def test_a_root_or_cache_that_is_a_file(place: Place, refused: Callable[..., str]) -> None:
    place.add()
    place.root.write_text("x")
    assert str(place.root) in refused()
    place.root.unlink()
    place.cache.write_text("x")
    assert str(place.cache) in refused()


@pytest.mark.parametrize("files", ["files", "store"])
@pytest.mark.parametrize("have", ["all", "some", "touched"])
def test_identical_files_are_adopted(place: Place, run: Callable[..., str], files: str, have: str) -> None:
    """As on the machine where a dataset was converted."""
    contents = getattr(place, files)
    place.add(files=contents)
    if have == "touched":
        run()
    for name in list(contents)[: None if have != "some" else 1 if files == "files" else None]:
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / name).write_bytes(contents[name])
        os.utime(place.root / name, ns=(1, 1))
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in place.root.rglob("*.h5")}
    assert run().endswith(("fetched\n", "from cache\n"))
    assert place.content() == contents
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    assert run().endswith("up to date\n")
    assert [path.name for path in (place.root / ".gust").iterdir()] == [f"{place.name}.json"]


@pytest.mark.parametrize("change", ["one byte", "one more", "link inside"])
def test_a_store_that_is_not_identical_is_kept(
    place: Place, refused: Callable[..., str], change: str
) -> None:
    place.add(files=place.store)
    for name, data in place.store.items():
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / name).write_bytes(data)
    chunk = place.root / "darcy2d_mesh_train.zarr/coords/c/0/0"
    if change == "one byte":
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    elif change == "one more":
        chunk.with_name("1").touch()
    else:
        chunk.rename(place.folder / "chunk")
        chunk.symlink_to(place.folder / "chunk")
    before = place.content()
    assert "exists already" in refused()
    assert place.content() == before


def test_receipts_that_are_nonsense(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    receipt = place.root / ".gust" / f"{place.name}.json"
    content = json.loads(receipt.read_text())
    changed = [json.dumps({**content, key: 99}) for key in ("format_version", "name", "files")]
    for text in ("", "[]", "{}", "[" * 100_000, *changed):
        receipt.write_text(text)
        assert run().endswith("from cache\n")  # the files are known by their bytes
    assert run().endswith("up to date\n")


def test_a_receipt_that_names_something_else_removes_nothing(place: Place, run: Callable[..., str]) -> None:
    place.add()
    run()
    victim = place.folder / "victim.json"
    victim.write_text("untouched")
    content = json.loads((place.root / ".gust" / f"{place.name}.json").read_text())
    lie = place.root / ".gust" / "lie.json"
    lie.write_text(json.dumps({**content, "name": "../../victim"}))
    (place.root / "burgers1d_val.h5").unlink()
    run()
    assert victim.read_text() == "untouched"
    assert lie.exists()
