"""`python -m gust_torch.tokenizer`: files written, text printed, errors in one line, two processes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.checkpoint import save_model
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tokenizer.__main__ import main
from gust_torch.tokenizer.npz import load_tokenized_data
from gust_torch.tokenizer.tokenizer import VQVAETokenizer

CPU = ["--accelerator", "cpu", "--devices", "1", "--batch_size", "4"]


@pytest.fixture
def arguments(checkpoint: Path, data: Path) -> list[str]:
    """Arguments of both commands."""
    return ["--checkpoint", str(checkpoint), "--data_path", str(data), *CPU]


@pytest.fixture
def tokens(arguments: list[str], tmp_path: Path) -> Path:
    """Return the token file of the data."""
    path = tmp_path / "tokens.npz"
    assert main(["save", *arguments, "--output", str(path)]) == 0
    return path


def fail(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; return its one line of error."""
    capsys.readouterr()
    assert main(argv) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("tokens: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_saved_tokens_decode_to_the_models_reconstruction(
    tokens: Path, checkpoint: Path, frames: Tensor, model: VQVAE2d
) -> None:
    data = load_tokenized_data(tokens)
    tokenizer = VQVAETokenizer.from_checkpoint(checkpoint).use_vocabulary(tokens)
    flat = torch.from_numpy(data["indices_flat"])
    assert flat.shape == (11, 11)
    assert torch.equal(tokenizer.decode(flat[:4]), model.reconstruct(frames[:4]))
    assert torch.equal(flat.long(), torch.cat([tokenizer.encode(batch) for batch in frames.split(4)]))
    assert flat.unique().tolist() == list(range(data["effective_vocab_size"]))


def test_saved_file_tells_its_origin(tokens: Path, checkpoint: Path, data: Path) -> None:
    stored = load_tokenized_data(tokens)
    assert stored["trajectory"].tolist() == [0] * 6 + [1] * 5
    assert stored["time"].tolist() == [0.25 * i for i in (*range(6), *range(5))]
    assert stored["field_names"] == ("buoyancy", "vorticity")
    assert stored["mean"].tolist() == [0.5, 0.0]
    assert stored["std"].tolist() == pytest.approx([0.2, 5.0])
    config = stored["config"]
    assert config["architecture"]["scales"] == [[1, 1], [2, 1], [4, 2]]
    assert config["spec"]["grid"] == [16, 8]
    origin = config["provenance"]
    assert origin["checkpoint"] == str(checkpoint)
    assert origin["data_path"] == [str(data)]
    assert (origin["sample_start"], origin["sample_stop"]) == (0, 11)
    assert len(origin["checkpoint_sha256"]) == 64
    assert {"package_version", "git_commit"} <= set(origin)


def test_every_sample_is_encoded_once(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_encoded = 0
    tokenize = VQVAETokenizer.tokenize

    def counting(self: VQVAETokenizer, x: Tensor) -> Tensor:
        nonlocal num_encoded
        num_encoded += len(x)
        return tokenize(self, x)

    monkeypatch.setattr(VQVAETokenizer, "tokenize", counting)
    assert main(["save", *arguments, "--output", str(tmp_path / "tokens.npz")]) == 0
    assert num_encoded == 12, "11 samples and one row that fills the last batch"


def test_sample_range_and_worker_processes(arguments: list[str], tokens: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.npz"
    extra = ["--sample_start", "3", "--sample_stop", "9", "--num_workers", "1", "--fit_from", str(tokens)]
    assert main(["save", *arguments, *extra, "--output", str(part)]) == 0
    whole, some = load_tokenized_data(tokens), load_tokenized_data(part)
    assert np.array_equal(some["indices_flat"], whole["indices_flat"][3:9])
    assert some["trajectory"].tolist() == [0, 0, 0, 1, 1, 1]
    origin = some["config"]["provenance"]
    assert (origin["sample_start"], origin["sample_stop"], origin["vocabulary_from"]) == (3, 9, str(tokens))


def test_two_processes_write_the_same_file(arguments: list[str], tokens: Path, tmp_path: Path) -> None:
    path = tmp_path / "ddp.npz"
    # The launcher starts the second process with the same command line.
    command = [sys.executable, "-m", "gust_torch.tokenizer", "save", *arguments, "--output", str(path)]
    command += ["--devices", "2", "--strategy", "ddp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written") == 1
    with np.load(tokens, allow_pickle=False) as one, np.load(path, allow_pickle=False) as two:
        assert one.files == two.files
        # The git commit in the configuration may change while the test runs.
        for key in set(one.files) - {"config_json"}:
            assert np.array_equal(one[key], two[key]), key
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ddp.npz", "tokens.npz"]


def test_unseen_codes_are_reported(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.npz"
    assert main(["save", *arguments, "--sample_stop", "1", "--output", str(first)]) == 0
    capsys.readouterr()
    assert main(["save", *arguments, "--fit_from", str(first), "--output", str(tmp_path / "all.npz")]) == 0
    assert "had a code outside the vocabulary" in capsys.readouterr().out
    a, b = load_tokenized_data(first), load_tokenized_data(tmp_path / "all.npz")
    assert np.array_equal(a["codebook"], b["codebook"])
    assert b["indices_flat"].min() >= 0
    assert main(["info", *arguments, "--fit_from", str(first)]) == 0
    out = capsys.readouterr().out
    assert "with codes outside the vocabulary left out" in out


def test_info_prints_usage_cost_and_exactness(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", *arguments]) == 0
    out = capsys.readouterr().out
    # (1 log2 4 + 2 log2 8 + 8 log2 16) / (2 * 16 * 8)
    assert f"bits per pixel {40 / 256:.4f} nominal" in out
    assert "exact: max |decode(encode(x)) - reconstruct(x)| = 0 on 11 samples" in out
    assert "NOT EXACT" not in out
    for text in ("perplexity/K", "4x2", "buoyancy", "vorticity", "samples        11, 11 tokens each"):
        assert text in out


def test_info_fails_when_tokens_do_not_decode_exactly(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = VQVAE2d.decode
    monkeypatch.setattr(VQVAE2d, "decode", lambda self, indices: decode(self, indices) * (1 + 1e-6))
    assert fail(capsys, "info", *arguments) == "error: decode(encode(x)) differs from reconstruct(x)"


def test_existing_output_needs_overwrite(
    arguments: list[str], tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tokens.read_bytes()
    save = ["save", *arguments, "--sample_stop", "2", "--output", str(tokens)]
    assert "pass --overwrite" in fail(capsys, *save)
    assert tokens.read_bytes() == before
    assert main([*save, "--overwrite"]) == 0
    assert len(load_tokenized_data(tokens)["indices_flat"]) == 2


def test_errors_are_one_line_with_a_remedy(
    checkpoint: Path,
    data: Path,
    frames: Tensor,
    write_data: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def info(*more: str, checkpoint: Path = checkpoint, data: Path = data) -> str:
        return fail(capsys, "info", "--checkpoint", str(checkpoint), "--data_path", str(data), *CPU, *more)

    assert "missing.ckpt" in info(checkpoint=tmp_path / "missing.ckpt")
    assert "missing.h5" in info(data=tmp_path / "missing.h5")
    assert "names buoyancy vorticity, got vorticity" in info("--fields", "vorticity")
    write_data(tmp_path / "grid.h5", frames[..., :4])
    assert "grid 16x8, got 16x4" in info(data=tmp_path / "grid.h5")
    write_data(tmp_path / "walls.h5", frames, boundary_y="periodic")
    assert "boundary periodic wall, got periodic periodic" in info(data=tmp_path / "walls.h5")
    assert "batch_size >= 1" in info("--batch_size", "0")
    for devices in ("0", "x"):
        assert "change --devices, --accelerator" in info("--devices", devices)
    assert "sample_start" in info("--sample_start", "99")
    folder = tmp_path / "none"
    assert "create it first" in fail(
        capsys,
        "save",
        "--checkpoint",
        str(checkpoint),
        "--data_path",
        str(data),
        "--output",
        f"{folder}/t.npz",
    )


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_a_nan_frame_is_named_and_nothing_is_written(
    arguments: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_workers: str
) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes(data.read_bytes())
    with h5py.File(bad, "r+") as file:
        file["fields/vorticity"][7, 3, 3] = np.nan
    save = [*arguments, "--data_path", str(bad), "--num_workers", num_workers]
    message = fail(capsys, "save", *save, "--output", str(tmp_path / "tokens.npz"))
    for part in ("bad.h5", "frame 7", "vorticity holds NaN"):
        assert part in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.h5"]


def test_vocabulary_of_another_checkpoint_is_refused(
    tokens: Path,
    data: Path,
    build_model: Callable[..., VQVAE2d],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(build_model(1), tmp_path / "other.ckpt")
    other = ["--checkpoint", str(tmp_path / "other.ckpt"), "--data_path", str(data), *CPU]
    assert "made with another codebook" in fail(capsys, "info", *other, "--fit_from", str(tokens))


def test_save_needs_an_output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["save", *arguments])
    assert "--output" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_lightning() -> None:
    code = (
        "import sys\nfrom gust_torch.tokenizer.__main__ import main\n"
        "try:\n    main(['save', '--help'])\n"
        "finally:\n    sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'h5py')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--fit_from" in done.stdout
