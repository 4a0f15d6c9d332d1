"""Registering an entry: every other byte stays, and the file is never invalid or half-written."""

import os
from pathlib import Path

import pytest

from gust_torch.artifacts.registry import DatasetEntry, check_registry, load_registry, register
from solvers.common.files import WriterLock

SHA = "ab" * 32
FIRST = f"""first:
  artifact: first:v0
  kind: grid
  splits:
    train: a.h5  # the large one
  sha256: {SHA}
  size: 1
  unpacked: 2   # bytes
"""
SECOND = FIRST.replace("first", "second")
HEAD, MIDDLE, TAIL = "# all of ours ü\n\n", "\n  # between,\n# the two\n", "# the end, without a newline"


def make_entry(name: str, **changes: object) -> DatasetEntry:
    """Return a valid entry with some fields changed."""
    values: dict[str, object] = {
        "name": name,
        "artifact": f"{name}:v0",
        "kind": "grid",
        "splits": {"train": "a.h5"},
        "sha256": SHA,
        "size": 1,
        "unpacked": 2,
    }
    return DatasetEntry(**{**values, **changes})


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry.yaml"
    path.write_bytes((HEAD + FIRST + MIDDLE + SECOND + TAIL).encode())
    return path


def test_appended_to_comments(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(HEAD)
    assert register(path, make_entry("third"), overwrite=False)
    assert path.read_text() == HEAD + make_entry("third").to_yaml()
    assert register(path, make_entry("fourth"), overwrite=False)
    assert path.read_text() == HEAD + make_entry("third").to_yaml() + "\n" + make_entry("fourth").to_yaml()
    assert load_registry(path)["fourth"] == make_entry("fourth")
    assert [item.name for item in tmp_path.iterdir()] == ["registry.yaml"]


def test_appended_behind_a_line_without_end(registry: Path) -> None:
    before = registry.read_bytes()
    register(registry, make_entry("third"), overwrite=False)
    assert registry.read_bytes() == before + b"\n\n" + make_entry("third").to_yaml().encode()


@pytest.mark.parametrize("name", ["1e5", "123", "null", "No", "0x1F", "2024-01-01", "1d_x", "a.b-c"])
def test_names_that_look_like_other_values(registry: Path, name: str) -> None:
    assert register(registry, make_entry(name), overwrite=False)
    assert load_registry(registry)[name] == make_entry(name)
    assert not register(registry, make_entry(name), overwrite=False)
    assert register(registry, make_entry(name, size=9), overwrite=True)
    assert check_registry(registry) == []


def test_a_new_or_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "registry.yaml"
    assert register(path, make_entry("third"), overwrite=False)
    assert path.read_text() == make_entry("third").to_yaml()
    path.write_bytes(b"")
    assert register(path, make_entry("third"), overwrite=False)
    assert path.read_text() == make_entry("third").to_yaml()


@pytest.mark.parametrize("name", ["first", "second"])
def test_replaced_in_its_place(registry: Path, name: str) -> None:
    entry = make_entry(name, kind="mesh", metadata={"resolution": (201, 1024)})
    expected = {"first": FIRST, "second": SECOND, name: entry.to_yaml()}
    assert register(registry, entry, overwrite=True)
    text = registry.read_bytes().decode()
    assert text == HEAD + expected["first"] + MIDDLE + expected["second"] + TAIL
    changed = registry.stat()
    assert not register(registry, entry, overwrite=False)  # a tuple is read back as a list
    assert (registry.stat().st_ino, registry.stat().st_mtime_ns) == (changed.st_ino, changed.st_mtime_ns)


@pytest.mark.parametrize(
    "old",
    [
        f"first: {{artifact: 'first:v1', kind: grid,\n  sha256: {SHA}, size: 1}} # c\n",
        FIRST.replace("artifact: first:v0", "artifact: >-\n    first:v1"),
        FIRST.replace("size: 1", "size: 3") + "  metadata:\n    note: |\n      text\n\n      text\n",
        FIRST.replace("size: 1", "size: 3") + "  metadata: {}\n",
        FIRST.replace("size: 1", "size: 3") + "  metadata: {a: [1,\n 2]}\n",
        "first:\n",
        "first: <to be uploaded>\n",
        FIRST.replace("first:v0", "<entity>/<project>/first:v0"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_replaced_whatever_it_looked_like(tmp_path: Path, old: str, newline: str) -> None:
    path = tmp_path / "registry.yaml"
    entry = make_entry("first")
    path.write_bytes((HEAD + old + MIDDLE + SECOND).replace("\n", newline).encode("utf-8-sig"))
    assert register(path, entry, overwrite=True)
    expected = HEAD + entry.to_yaml() + MIDDLE + SECOND
    assert path.read_bytes() == expected.replace("\n", newline).encode("utf-8-sig")


def test_the_same_is_left_alone(registry: Path) -> None:
    before = registry.read_bytes(), registry.stat().st_mtime_ns
    assert not register(registry, make_entry("first"), overwrite=False)
    assert not register(registry, make_entry("second", metadata={}), overwrite=True)
    assert (registry.read_bytes(), registry.stat().st_mtime_ns) == before


def test_another_is_refused(registry: Path) -> None:
    before = registry.read_bytes()
    with pytest.raises(ValueError, match=r"yaml:3: has another 'first'; give --overwrite"):
        register(registry, make_entry("first", size=5), overwrite=False)
    assert registry.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FIRST.replace("grid", "grids"), r"yaml:3: first: kind .*: correct that first"),
        (FIRST + FIRST, "stands here again"),
        ("a: [\n", r"yaml:2: not YAML"),
        ("{}\n", "does not fit in here"),
        ("- a\n", "expected a mapping"),
        ("~\n", "does not fit in here"),
        ("".join(f"  {line}\n" for line in FIRST.splitlines()), "does not fit in here"),
        (FIRST + "...\n", "does not fit in here"),
    ],
)
def test_files_that_take_no_entry(registry: Path, text: str, words: str) -> None:
    registry.write_text(text)
    with pytest.raises(ValueError, match=words):
        register(registry, make_entry("third"), overwrite=True)
    assert registry.read_text() == text
    assert [item.name for item in registry.parent.iterdir()] == ["registry.yaml"]


def test_document_marker_is_kept(registry: Path) -> None:
    registry.write_text("---\n" + FIRST)
    register(registry, make_entry("third"), overwrite=False)
    assert registry.read_text() == "---\n" + FIRST + "\n" + make_entry("third").to_yaml()


def test_an_error_leaves_the_old_file(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        register(registry, make_entry("third"), overwrite=False)
    assert caught.value.filename == str(registry)  # so that the command's one line names it
    assert registry.read_bytes() == before
    assert [item.name for item in registry.parent.iterdir()] == ["registry.yaml"]


def test_link_and_mode_are_kept(registry: Path) -> None:
    registry.chmod(0o640)
    link = registry.with_name("link.yaml")
    link.symlink_to(registry)
    register(link, make_entry("third"), overwrite=False)
    assert link.is_symlink()
    assert registry.stat().st_mode & 0o777 == 0o640
    assert "third" in load_registry(registry).values


def test_two_at_a_time(registry: Path) -> None:
    lock = WriterLock(registry)
    with pytest.raises(BlockingIOError, match="another process is writing it"):
        register(registry, make_entry("third"), overwrite=False)
    lock.release()
    assert register(registry, make_entry("third"), overwrite=False)
    assert check_registry(registry) == []
