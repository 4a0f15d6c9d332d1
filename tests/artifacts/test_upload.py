"""The upload command: what it refuses before it sends anything, and what it prints."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.upload import parse_metadata
from solvers.common.files import WriterLock

MakeFile = Callable[[int], Path]


@pytest.fixture
def main(
    script: Callable[[str], Callable[[list[str]], int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Return the command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    command = script("upload_artifact")
    return lambda *arguments: command(list(arguments))


def refused(main: Callable[..., int], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line with which the command refuses."""
    assert main(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_prints_the_reference_last(
    main: Callable[..., int], tmp_path: Path, make_file: MakeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_file(1000)
    arguments = ["burgers1d-subset", "dataset", str(path), "--store", f"file://{tmp_path}/store"]
    metadata = ["--metadata", '{"samples":20,"resolution":[201,1024],"parameters":["nu"]}']
    assert main(*arguments, *metadata) == 0
    (reference,) = capsys.readouterr().out.splitlines()
    description = json.loads(Path(reference.removeprefix("file://")).with_name("artifact.json").read_text())
    assert description["metadata"] == {"samples": 20, "resolution": [201, 1024], "parameters": ["nu"]}
    entry = DatasetEntry(
        name="burgers1d_subset_v1",
        artifact=reference,
        kind="grid",
        splits={"train": "burgers1d_train.h5"},
        sha256=description["sha256"],
        size=1000,
        unpacked=1000,
        metadata=description["metadata"],
    )
    assert entry.artifact == reference  # what is printed is what the registry takes

    assert main(*arguments, *metadata) == 0
    note, again = capsys.readouterr().out.splitlines()
    assert "nothing was uploaded" in note
    assert again == reference


def test_metadata_from_a_file(main: Callable[..., int], tmp_path: Path, make_file: MakeFile) -> None:
    (tmp_path / "metadata.json").write_text('{"samples": 20}')
    arguments = ["n", "dataset", str(make_file(5)), "--store", f"file://{tmp_path}/store"]
    assert main(*arguments, "--metadata", "@metadata.json") == 0
    stored = json.loads(next((tmp_path / "store").rglob("artifact.json")).read_text())
    assert stored["metadata"] == {"samples": 20}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"samples":20,}', "line 1 column 15"),
        ('{"samples":', "line 1 column 12"),
        ("samples=20", "line 1 column 1"),
        ("", "line 1 column 1"),
        ("{'samples':\n20}", "line 1 column 2"),
        ("[1, 2]", "expected a JSON object"),
        ("20", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": {"b": NaN}}', "a is {'b': nan}"),
        ('{"sha256": "0"}', "without sha256"),
        ("[" * 100_000, "recursion"),
        (json.dumps(dict.fromkeys(map(str, range(98)))), "at most 97 keys"),
        ("@none.json", "no such file"),
        ("@binary", "'utf-8' codec"),
    ],
)
def test_bad_metadata(
    main: Callable[..., int],
    tmp_path: Path,
    make_file: MakeFile,
    capsys: pytest.CaptureFixture[str],
    metadata: str,
    message: str,
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    path = str(make_file(5))
    line = refused(
        main, capsys, "n", "dataset", path, "--metadata", metadata, "--store", f"file://{tmp_path}/s"
    )
    assert message in line
    assert not (tmp_path / "s").exists()


def test_metadata_keeps_its_values() -> None:
    text = '{"a": [1, 2.5, null, true, "ν"], "b": {"c": 1e300}}'
    assert parse_metadata(text) == json.loads(text)


@pytest.mark.parametrize(
    ("name", "kind", "file", "message"),
    [
        ("n", "dataset", "none.tar.gz", "check the path"),
        ("n", "dataset", ".", "readable file"),
        ("n", "dataset", "empty", "readable file"),
        ("n", "dataset", "pipe", "readable file"),
        ("n", "dataset", "my data.tar.gz", "without spaces"),
        *(
            (name, "dataset", "x", "artifact name")
            for name in ("", "a b", "a/b", "a:b", "ä", "..", "x" * 129, "a\n")
        ),
        ("n", "data/set", "x", "artifact type 'data/set'"),
        ("n", "wandb-thing", "x", "is W&B's own"),
        ("n", "job", "x", "is W&B's own"),
    ],
)
def test_bad_names_and_files(
    main: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
    file: str,
    message: str,
) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for used in ("x", "my data.tar.gz"):
        (tmp_path / used).write_text("x")
    assert message in refused(main, capsys, name, kind, file, "--store", f"file://{tmp_path}/store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --project or set WANDB_PROJECT"),
        (["--project", "flows"], "no W&B login"),
        (["--store", "zzz://host"], "zzz:// is unknown"),
        (["--store", "store"], "unknown store"),
        (["--store", "file://store"], "plain URL"),
    ],
)
def test_bad_stores(
    main: Callable[..., int],
    make_file: MakeFile,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert message in refused(main, capsys, "n", "dataset", str(make_file(5)), *arguments)


def test_s3_from_the_command_line(
    main: Callable[..., int],
    s3_bucket: str,
    tmp_path: Path,
    make_file: MakeFile,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(make_file(1000))
    assert main("n", "dataset", path, "--store", f"s3://{s3_bucket}/sets") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"s3://{s3_bucket}/sets/n/")
    assert "no such bucket" in refused(main, capsys, "n", "dataset", path, "--store", "s3://none-such/sets")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in captured.out + captured.err
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()
    ]


def test_wandb_from_the_command_line(
    main: Callable[..., int], fake_wandb: object, make_file: MakeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    assert main("n", "dataset", str(make_file(5)), "--project", "flows", "--entity", "someone") == 0
    assert os.environ == before
    assert capsys.readouterr().out == "someone/flows/n:v0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_nothing(
    main: Callable[..., int],
    tmp_path: Path,
    make_file: MakeFile,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    def stopping(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(shutil, "copyfile", stopping)
    arguments = ["n", "dataset", str(make_file(1000)), "--store", f"file://{tmp_path}/store"]
    assert main(*arguments) == 128 + number
    output, errors = capsys.readouterr()
    assert (output, errors) == ("", "stopped; nothing was stored, the same command starts again\n")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_two_uploads_at_once(
    main: Callable[..., int], tmp_path: Path, make_file: MakeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_file(1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    target = tmp_path / "store" / "n" / digest / path.name
    target.parent.mkdir(parents=True)
    arguments = ["n", "dataset", str(path), "--store", f"file://{tmp_path}/store"]
    with WriterLock(target):
        assert "another process is writing it" in refused(main, capsys, *arguments)
    assert main(*arguments) == 0
