"""The lapped VQ-VAE through the training command, the tokenizer and a resume."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gust_torch.analysis.command import main as analyze
from gust_torch.checkpoint import load_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.models.lapped_vqvae import LappedVQVAE2d
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec
from gust_torch.tasks.checkpoints import FileCheckpointIO
from gust_torch.tasks.cli import main
from gust_torch.tasks.lapped_vqvae import random_reflections
from gust_torch.tokenizer.__main__ import main as tokenize
from gust_torch.tokenizer.npz import load_tokenized_data
from gust_torch.tokenizer.tokenizer import VQVAETokenizer

CONFIG = Path(__file__).parents[2] / "configs" / "lapped" / "turbulence_128.yaml"
TINY = {
    "scales": "[[2,2],[4,4]]",
    "vocab_size": "[8,16]",
    "code_dims": "[8,4]",
    "context_dims": "4",
    "context_width": 8,
    "decoder_width": 8,
    "decoder_blocks": 1,
    "initial_steps": 2,
    "code_steps": 5,
}


def flags(data: Path, root: Path, *more: str, steps: int = 12) -> list[str]:
    values = {
        "config": CONFIG,
        "data.data_path": data,
        "data.batch_size": 6,
        "trainer.max_steps": steps,
        "trainer.check_val_every_n_epoch": 1,
        "trainer.default_root_dir": root,
        "trainer.enable_progress_bar": "false",
        **{f"model.init_args.{name}": value for name, value in TINY.items()},
    }
    return ["fit", *(part for name, value in values.items() for part in (f"--{name}", str(value))), *more]


@pytest.fixture(scope="module")
def checkpoint(turbulence_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Newest checkpoint of a tiny training."""
    root = tmp_path_factory.mktemp("lapped")
    assert not main(flags(turbulence_file, root))
    return root / "checkpoints" / "last.ckpt"


def test_tokens_of_a_trained_model_decode_to_its_reconstruction(
    turbulence_file: Path, checkpoint: Path
) -> None:
    assert isinstance(load_model(checkpoint), LappedVQVAE2d)
    tokenizer = VQVAETokenizer.from_checkpoint(checkpoint)
    x = torch.stack([HDF5Dataset(str(turbulence_file))[i] for i in range(8)])
    tokenizer.fit([x])
    assert torch.equal(tokenizer.decode(tokenizer.encode(x)), tokenizer.reconstruct(x))


def test_searched_tokens_reach_the_file_and_decode_better(
    turbulence_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    inputs = ["--checkpoint", str(checkpoint), "--data_path", str(turbulence_file)]
    errors = []
    for number in ("0", "4"):
        path = tmp_path / f"tokens{number}.npz"
        assert tokenize(["save", *inputs, "--output", str(path), "--search", number]) == 0
        assert load_tokenized_data(path)["config"]["provenance"]["search"] == int(number)
        assert tokenize(["info", *inputs, "--search", number]) == 0  # the round trip is exact
        output = tmp_path / f"analysis{number}"
        assert analyze([*inputs, "--output_dir", str(output), "--search", number]) == 0
        metrics = json.loads((output / "metrics.json").read_text())
        errors.append(metrics["fields"]["vorticity"]["vrmse"]["mean"])
    assert errors[1] < errors[0]


def test_a_model_without_a_search_says_so() -> None:
    model = VQVAE2d(FieldSpec(("vorticity",), (32, 32)), vocab_size=8, scales=((1, 1), (2, 2)))
    model.candidates = 4
    with pytest.raises(ValueError, match="leave --search at 0"):
        model.tokenize(torch.zeros(1, 1, 32, 32))


def test_every_checkpoint_continues_bit_for_bit(
    turbulence_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, copies = FileCheckpointIO.save_checkpoint, tmp_path / "copies"
    copies.mkdir()

    def save_and_keep(self: FileCheckpointIO, checkpoint: dict, path: str, **options: object) -> None:
        save(self, checkpoint, path, **options)
        shutil.copy(path, copies / f"{checkpoint['global_step']:03d}.ckpt")

    command = flags(turbulence_file, tmp_path / "run", "--recent.train_time_interval", "0:00:00", steps=9)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointIO, "save_checkpoint", save_and_keep)
        assert not main(command)
    expected = torch.load(last, weights_only=True)["state_dict"]
    for step in ("001", "004", "007"):  # sketches are collected, codes learn, the decoder learns
        shutil.copy(copies / f"{step}.ckpt", last)
        assert not main([*command, "--ckpt_path", "last"])
        again = torch.load(last, weights_only=True)["state_dict"]
        tensors = {name: value for name, value in expected.items() if isinstance(value, torch.Tensor)}
        assert all(torch.equal(value, again[name]) for name, value in tensors.items()), step


def test_convection_trains_with_two_fields(convection_file: Path, tmp_path: Path) -> None:
    more = ["--data.fields", "[buoyancy,vorticity]", "--model.init_args.sketch", "[16,8]"]
    more += ["--model.init_args.scales", "[[2,1],[4,2]]"]
    assert not main(flags(convection_file, tmp_path, *more))


def test_reflections_are_those_of_a_flow() -> None:
    """The vorticity of a mirrored velocity is the mirrored vorticity with the other sign."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 6, 6)
    names = ("vorticity", "velocity_x", "buoyancy")
    y = random_reflections(x, names, ("periodic", "wall"), generator)
    mirrored = x.flip(2) * torch.tensor([-1.0, -1.0, 1.0])[:, None, None]
    kinds = [bool(torch.equal(a, b)) for a, b in zip(y, mirrored, strict=True)]
    assert all(kind or torch.equal(a, b) for kind, a, b in zip(kinds, y, x, strict=True))
    assert 16 < sum(kinds) < 48
