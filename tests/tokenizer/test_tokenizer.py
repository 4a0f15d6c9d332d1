"""The tokenizer as an object: exactness, vocabulary handling, what users do with its tensors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gust_torch.checkpoint import save_model
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tokenizer.npz import TokenSource, write_tokens
from gust_torch.tokenizer.tokenizer import VQVAETokenizer


@pytest.fixture
def tokenizer(checkpoint: Path, frames: Tensor) -> VQVAETokenizer:
    """Return a tokenizer fitted on the frames."""
    return VQVAETokenizer.from_checkpoint(checkpoint).fit(frames.split(4))


def write_vocabulary(path: Path, tokenizer: VQVAETokenizer) -> None:
    """Write a token file without samples."""
    source = TokenSource(
        field_names=("buoyancy", "vorticity"),
        mean=np.zeros(2),
        std=np.ones(2),
        trajectory=np.zeros(0),
        time=np.zeros(0),
        config={},
    )
    write_tokens(path, np.zeros((0, 11), dtype=np.int16), tokenizer.vocabulary, source, overwrite=False)


def test_decoded_tokens_are_the_models_reconstruction(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    tokens = tokenizer.encode(frames[:4])
    assert tokens.shape == (4, 11)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokenizer.decode(tokens), tokenizer.reconstruct(frames[:4]))
    with torch.no_grad():
        assert torch.equal(tokenizer.decode(tokens), tokenizer.model(frames[:4]).reconstruction)


def test_codebook_rows_are_what_the_decoder_looks_up(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    indices = tokenizer.model.tokenize(frames[:4])
    looked_up = [v.flatten(2).transpose(1, 2) for v in tokenizer.model.quantizer.lookup(indices)]
    rows = torch.from_numpy(tokenizer.vocabulary.codebook)[tokenizer.encode(frames[:4])]
    assert torch.equal(rows, torch.cat(looked_up, dim=1))


def test_vocabulary_holds_just_the_codes_of_its_data(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    tokens = torch.cat([tokenizer.encode(batch) for batch in frames.split(4)])
    assert torch.equal(tokens.unique(), torch.arange(tokenizer.vocabulary.effective_vocab_size))
    assert tokenizer.unseen_report() == []


def test_unseen_codes_become_neighbors_and_are_reported(
    tokenizer: VQVAETokenizer, make_frames: Callable[..., Tensor]
) -> None:
    tokenizer.fit([make_frames(1, seed=7)])
    other = make_frames(6, seed=8)
    vocabulary = tokenizer.vocabulary
    tokens = tokenizer.encode(other)
    tokenizer.decode(tokens)
    original = [index.flatten(1).numpy() for index in tokenizer.model.tokenize(other)]
    missing = [
        int((~np.isin(codes, used)).sum())
        for codes, used in zip(original, vocabulary.codes_in_use, strict=True)
    ]
    assert sum(missing) > 0
    report = tokenizer.unseen_report()
    assert [int(line.split(": ")[1].split()[0]) for line in report] == [count for count in missing if count]


def test_test_data_share_the_training_vocabulary(
    tokenizer: VQVAETokenizer, checkpoint: Path, tmp_path: Path, make_frames: Callable[..., Tensor]
) -> None:
    path = tmp_path / "train.npz"
    write_vocabulary(path, tokenizer)
    other = VQVAETokenizer.from_checkpoint(checkpoint).use_vocabulary(path)
    x = make_frames(3, seed=9)
    assert torch.equal(other.encode(x), tokenizer.encode(x))


def test_vocabulary_of_another_checkpoint_is_refused(
    tokenizer: VQVAETokenizer, tmp_path: Path, build_model: Callable[..., VQVAE2d]
) -> None:
    path = tmp_path / "train.npz"
    write_vocabulary(path, tokenizer)
    with pytest.raises(ValueError, match=r"train\.npz was made with another codebook"):
        VQVAETokenizer(build_model(1)).use_vocabulary(path)


def test_tokens_of_the_wrong_scale_are_refused(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    tokens = tokenizer.encode(frames[:2])
    wrong = tokens.clone()
    wrong[1, 1] = tokens[1, 10]
    with pytest.raises(
        ValueError, match=r"sample 1, position 1 is outside \d+\.\.\d+, the tokens of its scale 2x1"
    ):
        tokenizer.decode(wrong)
    for bad in (-1, tokenizer.vocabulary.effective_vocab_size):
        wrong[1, 1] = bad
        with pytest.raises(ValueError, match=f"token {bad} at sample 1"):
            tokenizer.decode(wrong)
    with pytest.raises(ValueError, match=r"expected indices of shape \(b, 11\), got \(2, 10\)"):
        tokenizer.decode(tokens[:, :10])


def test_int32_tokens_decode_too(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    tokens = tokenizer.encode(frames[:2])
    assert torch.equal(tokenizer.decode(tokens.int()), tokenizer.decode(tokens))


def test_without_a_vocabulary_the_remedy_is_named(checkpoint: Path, frames: Tensor) -> None:
    tokenizer = VQVAETokenizer.from_checkpoint(checkpoint)
    for use in (lambda: tokenizer.encode(frames), lambda: tokenizer.vocabulary, tokenizer.unseen_report):
        with pytest.raises(ValueError, match=r"call fit\(batches\) or use_vocabulary"):
            use()
    with pytest.raises(ValueError, match="at least one sample"):
        tokenizer.fit([])


def test_wrong_channels_are_refused(tokenizer: VQVAETokenizer) -> None:
    with pytest.raises(ValueError, match="choose the same fields and grid"):
        tokenizer.encode(torch.zeros(1, 1, 16, 8))


def test_untrained_codebooks_are_refused(tmp_path: Path, build_model: Callable[..., VQVAE2d]) -> None:
    model = build_model(0, autoencoder_steps=5)
    save_model(model, tmp_path / "early.ckpt")
    with pytest.raises(
        ValueError, match=r"early\.ckpt is of the first training steps, before its codebooks are set"
    ):
        VQVAETokenizer.from_checkpoint(tmp_path / "early.ckpt")


def test_codebooks_stand_still_inside_a_training_module(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    before = [book.clone() for book in tokenizer.model.codebooks]
    parent = nn.Sequential(tokenizer).train()
    assert parent.training
    tokenizer.model(frames)
    assert not tokenizer.model.training
    assert all(torch.equal(a, b) for a, b in zip(before, tokenizer.model.codebooks, strict=True))
    assert not any(parameter.requires_grad for parameter in parent.parameters())


def test_tokens_train_an_embedding(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    # Tensors made under inference_mode cannot be saved for a backward pass.
    embedding = nn.Embedding(tokenizer.vocabulary.effective_vocab_size, 2)
    embedding(tokenizer.encode(frames)).sum().backward()
    assert embedding.weight.grad is not None


def test_double_precision_fields_are_taken(tokenizer: VQVAETokenizer, frames: Tensor) -> None:
    assert torch.equal(tokenizer.encode(frames.double()), tokenizer.encode(frames))


def test_predict_step_gives_compact_codes_at_any_cut(model: VQVAE2d, frames: Tensor) -> None:
    tokenizer = VQVAETokenizer(model, predict_batch_size=4)
    codes = torch.cat([tokenizer.predict_step(batch, 0) for batch in frames.split(4)])
    assert codes.dtype == torch.int16
    expected = torch.cat([index.flatten(1) for index in model.tokenize(frames)], dim=1)
    assert torch.equal(codes.long(), expected)
    shapes: list[int] = []
    handle = model.encoder.register_forward_pre_hook(lambda _, args: shapes.append(len(args[0])))
    tokenizer.predict_step(frames[:3], 0)
    handle.remove()
    assert shapes == [4], "a short batch is filled up"
