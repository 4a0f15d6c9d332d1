"""Model checkpoints."""

import pytest
import torch

from gust_torch.checkpoint import load_model, save_model


def test_a_model_comes_back_from_its_file_alone(trained, tmp_path):
    model, x = trained
    save_model(model, tmp_path / "model.ckpt")
    again = load_model(tmp_path / "model.ckpt")
    assert not again.training
    assert again.spec == model.spec
    assert again.architecture() == model.architecture()
    assert torch.equal(again.mean, model.mean)
    assert torch.equal(again.reconstruct(x), model.reconstruct(x))
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


def test_missing_foreign_and_damaged_files_are_told_apart(trained, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_model(tmp_path / "nothing.ckpt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"not a checkpoint of scripts/train\.py"):
        load_model(tmp_path / "foreign.ckpt")
    save_model(trained[0], tmp_path / "model.ckpt")
    content = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "short.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"not a readable checkpoint.*truncated"):
        load_model(tmp_path / "short.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_model(tmp_path / "empty.ckpt")


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"gust_torch": print, "state_dict": {}}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_model(tmp_path / "code.ckpt")


def test_other_format_versions_and_weights_are_refused(trained, tmp_path):
    path = tmp_path / "model.ckpt"
    save_model(trained[0], path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "gust_torch": {**content["gust_torch"], "format_version": 99}}, path)
    with pytest.raises(ValueError, match="checkpoint format 99"):
        load_model(path)
    torch.save({**content, "state_dict": {}}, path)
    with pytest.raises(ValueError, match="do not match the architecture"):
        load_model(path)
