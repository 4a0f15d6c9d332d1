"""Checkpoints and token files, broken in many ways: every command ends in one line, or does its work."""

import copy
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gust_torch.analysis.command import main as analyze
from gust_torch.checkpoint import load_model, save_model
from gust_torch.evaluation.command import main as evaluate
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.precompute.command import main as precompute
from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.__main__ import main as tokenizer
from gust_torch.tokenizer.npz import load_tokenized_data

JUNK: tuple[Any, ...] = (None, -1, 0, 3, 10**9, 10**18, 0.5, float("nan"), "x", "", True)
JUNK = (*JUNK, [], [0], [10**9] * 3, ["x", "y"], {}, {"a": 1}, [[1, 2], [3]])
CASES = 60


class Program:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a file that shows that its code ran."""
        return os.mkdir, ("was_run",)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, data: Path) -> Path:
    """Return a token file of the data."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.npz"
    arguments = ["--checkpoint", str(checkpoint), "--data_path", str(data), "--accelerator", "cpu"]
    assert tokenizer(["save", *arguments, "--output", str(path)]) == 0
    return path


def ends_well(
    capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int], *arguments: object
) -> bool:
    """Run a command; whether it refused, which takes one line and leaves nothing behind."""
    capsys.readouterr()
    before = sorted(os.listdir())
    code = command([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    if code == 0:
        return False
    # Progress and the warning of other units are no errors.
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert code == 1, captured.err
    assert len(lines) == 1, captured.err
    assert not any(word in captured.err for word in ("Traceback", "Warning:", "weights_only")), captured.err
    assert len(lines[0]) < 800, captured.err
    assert sorted(os.listdir()) == before
    return True


def refusal(function: Callable[..., object], *arguments: object) -> str:
    """Return what a function says where it refuses its arguments, "" where it takes them."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def broken_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Return a file that is damaged, or something else."""
    choice = rng.integers(8)
    if choice < 3:
        return content[: int(rng.integers(len(content)))]
    if choice == 3:
        return b""
    if choice == 4:
        return bytes(rng.integers(256, size=int(rng.integers(1, 3000)), dtype=np.uint8))
    if choice == 5:
        return b"epoch,loss\n1,0.5\n" * int(rng.integers(1, 50))
    if choice == 6:
        return pickle.dumps({"gust_torch": Program(), "state_dict": {}}, protocol=int(rng.integers(0, 5)))
    damaged = bytearray(content)
    for place in rng.integers(len(content), size=20):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def broken_state(rng: np.random.Generator, content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's content with one thing missing, wrong or absurd."""
    content = copy.deepcopy(content)
    model = content["gust_torch"]
    place = (content, model, model["spec"], model["architecture"], content["state_dict"])[rng.integers(5)]
    key = str(rng.choice(sorted(map(str, place))))
    value = place[key]
    choice = rng.integers(4)
    if choice == 0:
        del place[key]
    elif choice == 1:
        place[f"{key}_"] = place.pop(key)
    elif choice == 2 and isinstance(value, torch.Tensor):
        place[key] = (value.flatten()[:-1], value * torch.nan, value.to_sparse(), value.double() * 1e40)[
            rng.integers(4)
        ]
    elif choice == 2 and isinstance(value, list) and value:
        value[rng.integers(len(value))] = JUNK[rng.integers(len(JUNK))]
    else:
        place[key] = JUNK[rng.integers(len(JUNK))]
    return content


def test_broken_checkpoints_end_in_one_line(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(7)
    content = torch.load(checkpoint, weights_only=True)
    path = tmp_path / "broken.ckpt"
    (tmp_path / "burgers1d_train.h5").write_bytes(data.read_bytes())
    sets = ("--tasks", "burgers1d", "--splits", "train", "--root", tmp_path, "--cache-dir", "cache")
    refused = 0
    for case in range(CASES):
        if case % 3:
            torch.save(broken_state(rng, content), path)
        else:
            path.write_bytes(broken_bytes(rng, checkpoint.read_bytes()))
        on_data = ("--checkpoint", path, "--data_path", data, "--accelerator", "cpu")
        refused += ends_well(capsys, tokenizer, "info", *on_data, "--check_samples", "1")
        if case % 4 == 0:
            ends_well(capsys, tokenizer, "save", *on_data, "--overwrite", "--output", tmp_path / "t.npz")
        if case % 10 == 0:
            assert ends_well(capsys, evaluate, *on_data, "--output_dir", "out")
            assert ends_well(capsys, precompute, *sets, "--checkpoint", path)
        if case % 10 == 1 and refused:
            path.write_bytes(broken_bytes(np.random.default_rng(case + 1), b"PK" + checkpoint.read_bytes()))
            assert ends_well(capsys, analyze, *on_data, "--output_dir", "out")
    # Some are harmless: another number of training steps, a flipped bit of a weight.
    assert refused > 0.7 * CASES
    assert not Path("was_run").exists()


@pytest.mark.parametrize("kind", [LatentAutoencoder, LatentOperator])
def test_broken_checkpoints_of_other_models(kind: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = FieldSpec(("a",), (8, 8))
    sizes = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_layers": 1, "num_heads": 2}
    model: Any = LatentAutoencoder(spec, **sizes)
    if kind is LatentOperator:
        model = LatentOperator(spec, autoencoder=model.architecture(), width=16, num_layers=1, num_heads=2)
    path = tmp_path / "broken.ckpt"
    save_model(model, path)
    assert type(load_model(path, kind)) is kind
    rng = np.random.default_rng(3)
    content, whole = torch.load(path, weights_only=True), path.read_bytes()
    refused = 0
    for case in range(CASES // 2):
        if case % 3:
            torch.save(broken_state(rng, content), path)
        else:
            path.write_bytes(broken_bytes(rng, whole))
        message = refusal(load_model, path, kind)
        refused += bool(message)
        assert not message or str(path) in message
    assert refused > 0.5 * CASES // 2


def test_an_absurd_architecture_takes_neither_memory_nor_time(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name, value in (
        ("base_channels", 10**12),
        ("num_res_blocks", [10**9, 10**9]),
        ("vocab_size", [10**9] * 3),
        ("codebook_dim", 10**9),
        ("channel_mult", [10**6, 10**6]),
        ("attention_heads", 10**9),
        ("scales", [[1, 1], [2, 1], [10**9, 10**9]]),
    ):
        changed = copy.deepcopy(content)
        changed["gust_torch"]["architecture"][name] = value
        torch.save(changed, tmp_path / "absurd.ckpt")
        with pytest.raises(ValueError, match=r"absurd\.ckpt: weights do not match the architecture"):
            load_model(tmp_path / "absurd.ckpt")


def broken_members(rng: np.random.Generator, members: dict[str, Any]) -> dict[str, Any]:
    """Return a token file's arrays with one missing, wrong or absurd."""
    members = dict(members)
    key = str(rng.choice(sorted(members)))
    array = members[key]
    choice = rng.integers(7)
    if choice == 0:
        del members[key]
    elif choice == 1:
        members[key] = np.array([{"a": 1}, None], dtype=object)
    elif choice == 2 and array.dtype.kind in "if":
        members[key] = -array - 1
    elif choice == 3 and array.dtype.kind in "if":
        members[key] = array + array.dtype.type(10**6)
    elif choice == 4:
        members[key] = array.reshape(-1)[:-1] if array.size > 1 else np.stack([array] * 2)
    elif choice == 5 and array.dtype.kind == "f":
        members[key] = np.full_like(array, np.nan)
    elif choice == 5 and array.dtype.kind == "U":
        members[key] = np.array("[" * 100_000)
    else:
        members[key] = (np.zeros(0), np.array("x"), np.array(10**15), np.ones((2, 2, 2)), np.array(True))[
            rng.integers(5)
        ]
    return members


def test_broken_token_files_end_in_one_line(
    tokens: Path, checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(11)
    with np.load(tokens) as archive:
        members = dict(archive)
    path = tmp_path / "broken.npz"
    on_data = ("--checkpoint", checkpoint, "--data_path", data, "--accelerator", "cpu")
    refused = 0
    for case in range(CASES):
        if case % 3:
            np.savez(path, **broken_members(rng, members))
        else:
            path.write_bytes(broken_bytes(rng, tokens.read_bytes()))
        refused += ends_well(capsys, tokenizer, "info", *on_data, "--fit_from", path, "--check_samples", "1")
        ends_well(capsys, tokenizer, "export", "--tokens", path, "--output", tmp_path / "e.npz")
        (tmp_path / "e.npz").unlink(missing_ok=True)
        message = refusal(load_tokenized_data, path)
        assert not message or str(path) in message
    assert refused > 0.5 * CASES
    assert not Path("was_run").exists()


@pytest.mark.parametrize("key", ["codebook", "scales", "unified_to_scale", "original_codebook_scale_1"])
def test_a_header_that_promises_too_much_takes_no_memory(tokens: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(tokens) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename == f"{key}.npy":
                header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)}
                with new.open(info.filename, "w") as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(content)
            else:
                new.writestr(info.filename, content)
    with pytest.raises(ValueError, match=r"large\.npz is not a token file, or damaged"):
        load_tokenized_data(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"indices_flat": -1}, "holds -1"),
        ({"indices_flat": 10**6}, "1000000"),
        ({"scales": [[1, 1], [2, 1], [3, 2]]}, "expected"),
        ({"scales": [[1, 1], [2, 1]]}, "codebook has shape"),
        ({"scales": [[0, 1], [2, 1], [4, 2]]}, "scales lie outside"),
        ({"unified_to_original": 10**6}, "codes in use must ascend"),
        ({"indices_flat": None}, r"broken\.npz .*lacks indices_flat"),
        ({"time": None, "mean": None}, r"broken\.npz .*lacks mean, time"),
        ({"time": ["a"] * 11}, "time has type"),
    ],
)
def test_members_that_contradict_each_other_are_named(
    tokens: Path, tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    with np.load(tokens) as archive:
        members = dict(archive)
    for key, value in change.items():
        if value is None:
            del members[key]
        elif isinstance(value, int):
            members[key] = members[key].copy()
            members[key].reshape(-1)[-1] = value
        else:
            members[key] = np.array(value)
    np.savez(tmp_path / "broken.npz", **members)
    with pytest.raises(ValueError, match=word):
        load_tokenized_data(tmp_path / "broken.npz")


def test_a_folder_and_a_missing_file(tokens: Path, tmp_path: Path) -> None:
    shutil.copytree(tokens.parent, tmp_path / "folder.npz")
    for path in (tmp_path / "folder.npz", tmp_path / "none.npz"):
        with pytest.raises(FileNotFoundError, match=path.name):
            load_tokenized_data(path)
        with pytest.raises(ValueError, match="no checkpoint at"):
            load_model(path)
