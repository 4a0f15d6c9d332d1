"""What the commands refuse, tell and leave behind where something is wrong around them."""

import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.checkpoint import save_model
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tokenizer import pipeline
from gust_torch.tokenizer.__main__ import main
from gust_torch.tokenizer.npz import load_tokenized_data
from gust_torch.tokenizer.tokenizer import VQVAETokenizer


@pytest.fixture
def arguments(checkpoint: Path, data: Path) -> list[str]:
    """Arguments of `save` and `info`."""
    return ["--checkpoint", str(checkpoint), "--data_path", str(data), "--accelerator", "cpu"]


@pytest.fixture
def tokens(arguments: list[str], tmp_path: Path) -> Path:
    """Return the token file of the data."""
    path = tmp_path / "tokens.npz"
    assert main(["save", *arguments, "--output", str(path)]) == 0
    return path


def test_equal_codebooks_with_another_decoder_are_refused(
    tokens: Path, build_model: Callable[..., VQVAE2d], tmp_path: Path, arguments: list[str], frames: Tensor
) -> None:
    other = build_model(0)
    with torch.no_grad():
        next(other.decoder.parameters()).mul_(1.5)
    save_model(other, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"tokens\.npz was made by a model with other weights"):
        VQVAETokenizer.from_checkpoint(tmp_path / "other.ckpt").use_vocabulary(tokens)
    assert (
        main(["info", *arguments, "--checkpoint", str(tmp_path / "other.ckpt"), "--fit_from", str(tokens)])
        == 1
    )
    # Another file with the same weights is the same model.
    save_model(build_model(0), tmp_path / "copy.ckpt")
    tokenizer = VQVAETokenizer.from_checkpoint(tmp_path / "copy.ckpt").use_vocabulary(tokens)
    decoded = tokenizer.decode(load_tokenized_data(tokens)["indices_flat"])
    assert torch.equal(decoded, tokenizer.reconstruct(frames.numpy()))


def test_a_file_of_an_older_version_is_compared_by_its_checkpoint(
    tokens: Path, checkpoint: Path, build_model: Callable[..., VQVAE2d], tmp_path: Path
) -> None:
    with np.load(tokens) as archive:
        members = dict(archive)
    text = re.sub(r'"weights_sha256": "\w+", ', "", str(members["config_json"]))
    np.savez(tmp_path / "old.npz", **{**members, "config_json": np.array(text)})
    VQVAETokenizer.from_checkpoint(checkpoint).use_vocabulary(tmp_path / "old.npz")
    other = build_model(0)
    other.mean += 1
    save_model(other, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other weights"):
        VQVAETokenizer.from_checkpoint(tmp_path / "other.ckpt").use_vocabulary(tmp_path / "old.npz")


def test_decode_takes_arrays_and_refuses_fractions(tokens: Path, checkpoint: Path) -> None:
    tokenizer = VQVAETokenizer.from_checkpoint(checkpoint).use_vocabulary(tokens)
    flat = load_tokenized_data(tokens)["indices_flat"][:2]
    expected = tokenizer.decode(torch.from_numpy(flat))
    for same in (flat.astype(np.uint16), flat.tolist(), np.asfortranarray(flat), flat[::-1][::-1]):
        assert torch.equal(tokenizer.decode(same), expected)
    for wrong in (flat.astype(np.float32), torch.from_numpy(flat).float()):
        with pytest.raises(ValueError, match="whole numbers"):
            tokenizer.decode(wrong)


def test_another_domain_or_grid_is_refused_and_other_units_are_told(
    arguments: list[str],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = tmp_path / "changed.h5"
    argv = ["info", *arguments, "--data_path", str(changed)]

    def change(edit: Callable[[h5py.File], None]) -> None:
        changed.write_bytes(data.read_bytes())
        with h5py.File(changed, "r+") as file:
            edit(file)
        capsys.readouterr()

    def longer(file: h5py.File) -> None:
        file["metadata"].attrs["length_x"] = 8.0
        file["coordinates/x"][:] *= 2

    change(longer)
    assert main(argv) == 1
    assert "lengths (4.0, 1.0), got (8.0, 1.0)" in capsys.readouterr().err

    def chebyshev(file: h5py.File) -> None:
        file["metadata"].attrs["grid_y"] = "chebyshev"
        file["coordinates/y"][:] = (1 - np.cos(np.pi * (np.arange(8) + 0.5) / 8)) / 2

    change(chebyshev)
    assert main(argv) == 1
    assert "grid_y uniform, got chebyshev" in capsys.readouterr().err

    def larger(file: h5py.File) -> None:
        file["fields/vorticity"][:] *= 1000

    change(larger)
    assert main(argv) == 0
    (record,) = [record for record in caplog.records if "standard deviation" in record.getMessage()]
    assert "vorticity" in record.getMessage()
    assert "buoyancy" not in record.getMessage()


def test_no_secret_is_stored(
    arguments: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = pipeline.HDF5Dataset
    monkeypatch.setattr(pipeline, "HDF5Dataset", lambda path, **options: opened(data, **options))
    url = "https://user:password@host.org/data.h5?X-Amz-Signature=secret"
    output = tmp_path / "tokens.npz"
    assert main(["save", *arguments, "--data_path", url, "--output", str(output)]) == 0
    origin = load_tokenized_data(output)["config"]["provenance"]
    assert origin["data_path"] == ["https://host.org/data.h5"]
    with np.load(output) as archive:
        text = " ".join(str(archive[key]) for key in archive.files)
    assert "secret" not in text
    assert "password" not in text


@pytest.mark.parametrize("num_bytes", [100, 2000])  # none for the codes, none for the token file
def test_without_room_there_is_one_line_and_nothing_else(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], num_bytes: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))  # files end there, as on a full disk
    try:
        code = main(["save", *arguments, "--output", str(tmp_path / "tokens.npz")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("tokens: ")]
    assert code == 1
    assert "tokens.npz" in line
    assert "too large" in line
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced_and_two_runs_exclude_each_other(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from solvers.common.files import WriterLock

    output = tmp_path / "tokens.npz"
    for name in (".tokens.npz.codes.part", ".tokens.npz.part", ".other.npz.codes.part", ".other.npz.lock"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".at_work.npz.codes.part").touch()
    at_work = WriterLock(tmp_path / "at_work.npz")
    lock = WriterLock(output)
    assert main(["save", *arguments, "--output", str(output)]) == 1
    assert "another process is writing it" in capsys.readouterr().err
    lock.release()
    assert main(["save", *arguments, "--output", str(output)]) == 0
    at_work.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".at_work.npz.codes.part", "tokens.npz"]
    assert main(["save", *arguments, "--overwrite", "--output", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_a_word(
    arguments: list[str], data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "tokens.npz"
    many = [*arguments, "--data_path", str(data), "--batch_size", "1"]
    # Slow reading, so that the signal comes in the middle.
    code = (
        "import sys, time\nfrom gust_torch.tokenizer import pipeline\n"
        "from gust_torch.tokenizer.__main__ import main\n"
        "read = pipeline.read_frames\n"
        "pipeline.read_frames = lambda *given: (time.sleep(1), read(*given))[1]\n"
        "sys.exit(main(['save', *sys.argv[1:]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *many, "--output", str(output)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / ".tokens.npz.codes.part").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "stopped; nothing was written"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_where_there_is_no_terminal(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["save", *arguments, "--output", str(tmp_path / "tokens.npz")]) == 0
    assert "11/11 samples" in capsys.readouterr().err


def test_the_block_of_the_readme_works(
    tokens: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "VQVAETokenizer" in block
    ]
    monkeypatch.chdir(tokens.parent)
    Path("model.ckpt").write_bytes(checkpoint.read_bytes())
    names: dict[str, Tensor] = {}
    exec(block, names)
    assert names["fields"].shape[1:] == (2, 16, 8)
