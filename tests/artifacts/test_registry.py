"""The registry of data sets: what is accepted, and that every problem is found with its line."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from gust_torch.artifacts.reference import expand_reference
from gust_torch.artifacts.registry import (
    DatasetEntry,
    check_registry,
    default_registry,
    find_entries,
    load_registry,
    main,
)

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "dataset_registry.yaml"
SHA = "ab" * 32
METADATA = "{samples: 20, resolution: [201, 1024], parameters: [nu]}"
GOOD = f"""# all of ours
burgers1d_subset_v1:
  artifact: someone/sims/burgers1d-subset:v0   # uploaded by hand
  kind: grid
  splits: {{train: burgers1d_train.h5, val: burgers1d_val.h5}}
  sha256: {SHA}
  size: 1234
  unpacked: 2345
  metadata: {METADATA}
darcy:
  artifact: s3://bucket/folder/darcy.tar.gz
  kind: mesh
  splits:
    train: darcy2d_mesh_train.zarr
  sha256: '{"1" * 64}'
  size: 1
  unpacked: 1
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD)
    return path


def make_entry(**changes: object) -> DatasetEntry:
    """Return a valid entry with some fields changed."""
    values: dict[str, object] = {
        "name": "burgers1d_subset_v1",
        "artifact": "someone/sims/burgers1d-subset:v0",
        "kind": "grid",
        "splits": {"train": "burgers1d_train.h5", "val": "burgers1d_val.h5"},
        "sha256": SHA,
        "size": 1234,
        "unpacked": 2345,
        "metadata": {"samples": 20, "resolution": [201, 1024], "parameters": ["nu"]},
    }
    return DatasetEntry(**{**values, **changes})


def test_load(registry: Path) -> None:
    loaded = load_registry(registry)
    assert loaded["burgers1d_subset_v1"] == make_entry()
    assert loaded["darcy"].splits == {"train": "darcy2d_mesh_train.zarr"}
    assert loaded["darcy"].metadata == {}
    assert list(loaded.values) == ["burgers1d_subset_v1", "darcy"]


def test_unknown_name(registry: Path) -> None:
    loaded = load_registry(registry)
    with pytest.raises(ValueError, match=r"no data set 'burgers1d_subset_v2', it has burgers1d_subset_v1;"):
        loaded["burgers1d_subset_v2"]
    with pytest.raises(ValueError, match="it has burgers1d_subset_v1, darcy"):
        loaded["x"]


def test_text_of_an_entry_is_read_back(tmp_path: Path) -> None:
    awkward = {
        "text": "two\nlines: x # y, {z}",
        "number": "1e5",
        "words": ["nan", "inf", "null", "yes"],
        "date": "2024-01-01",
        "none": None,
        "nested": {"empty": {}, "list": [1, 2.5e-8, True, [" x "]]},
        "tab": "a\tb\u2028\x07\\",
        "quote": 'it\'s "so" ü',
    }
    entry = make_entry(sha256="1" * 64, splits={"train": "a b, {}.h5", "val": "b #c.h5"}, metadata=awkward)
    path = tmp_path / "registry.yaml"
    path.write_text(entry.to_yaml(), encoding="utf-8")
    assert load_registry(path)[entry.name] == entry


# text in GOOD -> its replacement, the line and words of the problem
WRONG = {
    "placeholder": ("someone/sims/b", "<entity>/<project>/b", 3, "a placeholder; put in the reference"),
    "half a placeholder": ("someone/", "<someone/", 3, "a placeholder"),
    "no version": ("subset:v0", "subset", 3, "without a version"),
    "too many parts": ("someone/", "x/y/someone/", 3, "expected entity/project/name:version"),
    "artifact is a number": ("someone/sims/burgers1d-subset:v0", "7", 3, "artifact is 7, expected text"),
    "empty artifact": ("someone/sims/burgers1d-subset:v0", "''", 3, "artifact is ''"),
    "no bucket": ("s3://bucket/", "s3:///", 11, "expected a plain URL"),
    "unknown scheme": ("s3://bucket/", "s33://bucket/", 11, "unknown scheme s33://"),
    "relative file": ("s3://bucket/", "file://bucket/", 11, "expected a plain URL"),
    "a folder": ("darcy.tar.gz", "", 11, "expected a plain URL"),
    "dots": ("folder/", "../", 11, "expected a plain URL"),
    "a chain": ("s3://bucket/folder", "https://x/a::s3://b", 11, "expected a plain URL"),
    "a query": ("darcy.tar.gz", "darcy.tar.gz?token=1", 11, "expected a plain URL"),
    "unknown kind": ("kind: grid", "kind: grids", 4, "kind is 'grids', expected one of grid, mesh"),
    "kind is a list": ("kind: mesh", "kind: [mesh]", 12, "kind is ['mesh']"),
    "unknown key": ("size: 1234", "sise: 1234", 7, "unknown key 'sise'"),
    "missing key": ("  size: 1234\n", "", 2, "size is missing"),
    "unknown split": ("val: b", "valid: b", 5, "splits/valid is an unknown split"),
    "leaves the folder": ("train: burgers1d_", "train: ../", 5, "a file without folders"),
    "absolute": ("train: burgers1d_", "train: /etc/", 5, "a file without folders"),
    "windows": ("train: burgers1d_", "train: C:", 5, "a file without folders"),
    "backslash": ("train: burgers1d_", r"train: ..\x", 5, "a file without folders"),
    "hidden": ("train: burgers1d_", "train: .gust", 5, "not beginning with '.'"),
    "dot": ("burgers1d_train.h5", ".", 5, "not beginning with '.'"),
    "empty member": ("burgers1d_train.h5", "''", 5, "expected the name of a file"),
    "null member": ("burgers1d_train.h5", "", 5, "expected the name of a file"),
    "the same file": ("val: burgers1d_val", "val: Burgers1d_train", 5, "as train is; give each split"),
    "no splits": ("\n    train: darcy2d_mesh_train.zarr", " {}", 13, "splits is {}"),
    "splits is a list": ("\n    train: darcy2d_mesh_train.zarr", " [x]", 13, "splits is ['x']"),
    "short sha256": (SHA, SHA[:-1], 6, "expected 64 hexadecimal digits"),
    "capitals": (SHA, SHA.upper(), 6, "expected 64 hexadecimal digits in lower case"),
    "sha256 is a number": (f"'{'1' * 64}'", "1" * 64, 15, "expected 64 hexadecimal digits"),
    "negative": ("size: 1234", "size: -1", 7, "size is -1, expected a number of bytes above 0"),
    "zero": ("unpacked: 2345", "unpacked: 0", 8, "unpacked is 0"),
    "true": ("size: 1234", "size: true", 7, "size is True"),
    "text": ("size: 1234", "size: '1234'", 7, "size is '1234'"),
    "float": ("size: 1234", "size: 1.5e+3", 7, "size is 1500.0"),
    "metadata is text": (METADATA, "x", 9, "metadata is 'x', expected a mapping"),
    "a date": ("samples: 20", "samples: 2024-01-01", 9, "metadata/samples is datetime.date"),
    "nan": ("201", ".nan", 9, "metadata/resolution is [nan"),
    "a date that is none": ("samples: 20", "samples: 2024-13-45", 9, "not YAML: '2024-13-45' is not a value"),
    "bytes": ("samples: 20", "samples: !!binary aGk=", 9, "metadata/samples is b'hi'"),
    "python": ("samples: 20", "samples: !!python/name:os.system", 9, "not YAML"),
    "a boolean that is none": ("samples: 20", "samples: !!bool x", 9, "not YAML: 'x' is not a value"),
    "an empty number": ("size: 1234", "size: !!int ''", 7, "not YAML: '' is not a value"),
    "a time that is none": ("samples: 20", "samples: !!timestamp x", 9, "not YAML"),
    "a name with a slash": ("darcy:", "a/b:", 10, "'a/b': expected a name of letters"),
    "again": ("darcy:", "burgers1d_subset_v1:", 10, "stands here again"),
    "again below": ("kind: mesh", "artifact: x:v0", 12, "stands here again"),
    "again further below": ("val: b", "train: b", 5, "stands here again"),
    "alias": ("kind: grid", "kind: &k grid\n  other: *k", 4, "aliases are not supported"),
    "no entry": ("darcy:", "empty:\ndarcy:", 10, "empty: expected a mapping with artifact, kind"),
    "tab": ("  kind: grid", "\tkind: grid", 4, "not YAML"),
    "unbalanced": ("{samples: 20", "{{samples: 20", 10, "not YAML"),
    "control character": ("kind: grid", "kind: gr\x01id", 4, "not YAML"),
    "second document": ("darcy:", "---\ndarcy:", 10, "not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_entries(registry: Path, case: str) -> None:
    old, new, line, words = WRONG[case]
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    registry.write_text(text)
    problems = check_registry(registry)
    assert any(problem.startswith(f"{registry}:{line}: ") and words in problem for problem in problems), (
        problems
    )
    assert all("\n" not in problem for problem in problems)


def known(path: Path) -> list[str]:
    """Return data sets of GOOD that can be fetched."""
    return [name for name in ("burgers1d_subset_v1", "darcy") if _is_known(path, name)]


def _is_known(path: Path, name: str) -> bool:
    """Whether a data set can be fetched."""
    with contextlib.suppress(ValueError):
        return load_registry(path)[name].name == name
    return False


# Cases of WRONG after which a file does not say what its entries are.
UNREADABLE = {
    "a date that is none", "a boolean that is none", "a time that is none", "an empty number", "python",
    "again", "again below", "again further below", "alias", "tab", "unbalanced", "control character",
    "second document",
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_entry_stops_no_other(registry: Path, case: str) -> None:
    old, new, line, _ = WRONG[case]
    registry.write_text(GOOD.replace(old, new, 1))
    if case in UNREADABLE:
        assert known(registry) == []
    elif case == "no entry":
        assert known(registry) == ["burgers1d_subset_v1", "darcy"]
    else:
        assert known(registry) == (["burgers1d_subset_v1"] if line >= 10 else ["darcy"])


def test_keys_are_text_whatever_they_look_like(registry: Path) -> None:
    registry.write_text(GOOD.replace("darcy:", "12:").replace("samples: 20", "7: 20"))
    assert check_registry(registry) == []
    assert load_registry(registry)["12"].kind == "mesh"
    assert load_registry(registry)["burgers1d_subset_v1"].metadata["7"] == 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: empty, expected a mapping"),
        (" \n\n", ":1: empty, expected a mapping"),
        ("# c\n- a\n", ":2: expected a mapping, name of a data set -> entry, found ['a']"),
        ("word\n", ":1: expected a mapping, name of a data set -> entry, found 'word'"),
        ("a: " + "[" * 5_000, ":1: not YAML: nested deeper than 20 levels"),
        ("a: " + "{b: " * 5_000, ":1: not YAML: nested deeper than 20 levels"),
    ],
)
def test_wrong_files(registry: Path, text: str, words: str) -> None:
    registry.write_text(text)
    assert check_registry(registry)[0].startswith(f"{registry}{words}")


def test_not_text(registry: Path) -> None:
    registry.write_bytes(b"# \xc3\xbc\n# \xff\n")
    assert check_registry(registry) == [
        f"{registry}:2: not YAML: unacceptable character #xfffd: expected UTF-8; save it as UTF-8"
    ]


def test_comments_alone_are_a_registry(registry: Path) -> None:
    for text in ("# nothing yet\n", "{}\n", "~\n", "\ufeff# with a byte order mark\n"):
        registry.write_text(text, encoding="utf-8")
        assert load_registry(registry).values == {}


def test_every_problem_at_once(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = GOOD.replace("grid", "grids").replace("mesh\n", "meshes\n").replace(SHA, "x").splitlines()
    registry.write_text("\n".join([*lines, "empty: {}"]) + "\n")
    assert main(["check", str(registry)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    found = [line.removeprefix(f"{registry}:").split(":")[0] for line in printed.err.splitlines()]
    assert found == ["4", "6", "12", *["18"] * 6]
    registry.write_text(GOOD.replace("grid", "grids").replace(SHA, "x"))
    with pytest.raises(ValueError, match=r"yaml:4: .*; .*yaml:6: "):
        load_registry(registry)["burgers1d_subset_v1"]


def test_password_in_a_url_is_not_repeated(registry: Path) -> None:
    registry.write_text(GOOD.replace("s3://bucket", "s3://key:hush@bucket"))
    (problem,) = check_registry(registry)
    assert "has a password" in problem
    assert "hush" not in problem


def test_check_prints_one_line(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(registry)]) == 0
    assert capsys.readouterr() == (f"{registry}: 2 datasets, no problems\n", "")
    assert main(["check", str(registry.parent)]) == 1
    assert main(["check", str(registry.parent / "other.yaml")]) == 1
    assert f"{registry.parent}/other.yaml: no such file" in capsys.readouterr().err.splitlines()[1]


def test_shipped_registry() -> None:
    command = [sys.executable, "-W", "error", "-m", "gust_torch.artifacts.registry", "check"]
    result = subprocess.run(command, cwd=SHIPPED.parents[1], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        result.stdout
        == f"docs/dataset_registry.yaml: {len(load_registry(SHIPPED).values)} datasets, no problems\n"
    )


def test_shipped_template(registry: Path) -> None:
    _, template = SHIPPED.read_text().split("Template:\n#\n")
    registry.write_text("".join(line.removeprefix("# ") for line in template.splitlines(keepends=True)))
    problems = check_registry(registry)
    assert len(problems) == 2
    assert "artifact is '<entity>" in problems[0]
    assert "sha256 is '<64" in problems[1]


@pytest.mark.parametrize(
    "member", ["-x_train.h5", "a b_train.h5", 'a"_train.h5', "$(x)_train.h5", "_train.h5", "x.h5"]
)
def test_tasks_that_would_be_other_words_of_a_command(member: str) -> None:
    assert make_entry().task == "burgers1d"
    with pytest.raises(ValueError, match=r"expected TASK_train\.h5 or \.zarr; rename it"):
        make_entry(splits={"train": member}).task  # noqa: B018


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, gust_torch.artifacts.registry, gust_torch.artifacts.package;"
    code += "print(*{'torch', 'h5py', 'numpy', 'fsspec', 'wandb'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"


@pytest.mark.parametrize(
    ("reference", "entity", "project", "expected"),
    [
        ("b:v0", "e", "p", "e/p/b:v0"),
        ("q/b:v0", "e", "p", "e/q/b:v0"),
        ("d/q/b:latest", "e", "p", "d/q/b:latest"),
        ("d/q/b:latest", None, None, "d/q/b:latest"),
        ("s3://bucket/b.tar.gz", None, None, "s3://bucket/b.tar.gz"),
    ],
)
def test_expand(reference: str, entity: str | None, project: str | None, expected: str) -> None:
    assert expand_reference(reference, entity=entity, project=project) == expected


def test_expand_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with pytest.raises(ValueError, match=r"--entity \(or WANDB_ENTITY\) and --project \(or WANDB_PROJECT\)"):
        expand_reference("b:v0")
    with pytest.raises(ValueError, match="the W&B entity is not known"):
        expand_reference("b:v0", project="p")
    with pytest.raises(ValueError, match="without a version"):
        expand_reference("b", entity="e", project="p")
    monkeypatch.setenv("WANDB_ENTITY", "someone")
    monkeypatch.setenv("WANDB_PROJECT", "sims")
    assert expand_reference("b:v0") == "someone/sims/b:v0"
    assert expand_reference("b:v0", project="p") == "someone/p/b:v0"


UPS = """datasets:
  burgers1d_subset_v1:
    artifact: someone/sims/burgers1d-subset:v0
    kind: grid
    train_split: burgers1d_train.h5
    val_split: burgers1d_val.h5
    metadata: {resolution: [T, H, W, C]}
"""


def test_a_registry_of_ups_is_told_what_to_write(registry: Path) -> None:
    registry.write_text("# theirs\n\n" + UPS)
    with pytest.raises(ValueError, match="yaml:3: data sets stand below 'datasets:'") as caught:
        load_registry(registry)
    assert "write splits: {train: TASK_train.h5} for train_split:" in str(caught.value)
    assert check_registry(registry) == [str(caught.value)]
    for text in ("datasets: {}", "datasets:\n  x: 1", "datasets:\n  " + GOOD.replace("\n", "\n  ")):
        registry.write_text(text)
        with pytest.raises(ValueError, match="expected them at the top"):
            load_registry(registry)
    registry.write_text(GOOD.replace("darcy:", "datasets:"))  # a data set may be called so
    assert known(registry) == ["burgers1d_subset_v1"]
    assert load_registry(registry)["datasets"].kind == "mesh"


def test_where_a_registry_is_looked_for(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUST_REGISTRY", raising=False)
    with pytest.raises(FileNotFoundError, match=r"docs/dataset_registry\.yaml"):
        find_entries(["darcy"], registry=None, root=root)
    shared = tmp_path / "docs" / "dataset_registry.yaml"
    shared.parent.mkdir()
    shared.write_text(GOOD)
    names = ["darcy", "burgers1d_subset_v1", "darcy"]
    assert [item.name for item in find_entries(names, registry=None, root=root)] == names[:2]
    assert default_registry(root) == root / "dataset_registry.yaml"
    default_registry(root).write_text(
        make_entry(size=77).to_yaml() + "\n" + make_entry(name="mine").to_yaml()
    )
    found = find_entries([*names, "mine"], registry=None, root=root)
    assert [(item.name, item.size) for item in found][1:] == [("burgers1d_subset_v1", 77), ("mine", 1234)]
    assert "burgers1d_subset_v1 is not the same in" in caplog.text
    with pytest.raises(ValueError, match="no data set 'nothing'"):
        find_entries(["nothing"], registry=None, root=root)
    assert find_entries(["darcy"], registry=registry, root=root)[0].name == "darcy"
    monkeypatch.setenv("GUST_REGISTRY", str(registry))
    assert default_registry(root) == default_registry() == registry
    with pytest.raises(ValueError, match="no data set 'mine'"):
        find_entries(["mine"], registry=None, root=root)
