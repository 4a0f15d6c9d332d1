"""Lapped VQ-VAE: tokens decode to the reconstruction, training phases, walls, several fields, search."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gust_torch.models.lapped_vqvae import LappedVQVAE2d
from gust_torch.spec import FieldSpec

SMALL = {
    "scales": [[2, 2], [4, 4]],
    "vocab_size": [8, 16],
    "code_dims": [12, 6],
    "context_dims": 6,
    "context_width": 8,
    "decoder_width": 8,
    "decoder_blocks": 1,
    "initial_steps": 2,
    "code_steps": 6,
}
SPECS = {
    "periodic": FieldSpec(("vorticity",), (32, 32)),
    "wall": FieldSpec(("b", "vorticity"), (32, 16), ("periodic", "wall"), (4.0, 1.0), "chebyshev"),
    "odd": FieldSpec(("vorticity",), (36, 20)),
}


@pytest.fixture(scope="module")
def fields(smooth_fields: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fields(name, num, seed=0)`: smooth random fields (num, c, h, w) of the order of one."""
    return lambda name, num, seed=0: smooth_fields(SPECS[name], num, seed) / 5 - 0.6


@pytest.fixture(scope="module")
def trained(train: Callable[..., Any], fields: Callable[..., Tensor]) -> Callable[..., LappedVQVAE2d]:
    """`trained(name, steps=10, **changes)`: a model after some steps, in evaluation mode."""

    def build(name: str, steps: int = 10, **changes: object) -> LappedVQVAE2d:
        torch.manual_seed(0)
        sketch = {"wall": [16, 8], "odd": [12, 8]}.get(name)
        model = LappedVQVAE2d(SPECS[name], sketch=sketch, **{**SMALL, **changes})
        train(model, [fields(name, 16, seed) for seed in range(steps)], lr=1e-2)
        return model.eval()

    return build


@pytest.mark.parametrize("name", SPECS)
def test_tokens_decode_to_the_reconstruction_bit_for_bit(trained, fields, name: str):
    model = trained(name)
    x = fields(name, 5, seed=99)
    tokens = model.tokenize(x)
    assert [tuple(index.shape) for index in tokens] == [(5, 2, 2), (5, 4, 4)]
    assert torch.equal(model.decode(tokens), model.reconstruct(x))
    assert model.decode(tokens).shape == x.shape


def test_each_scale_and_training_bring_the_field_nearer(trained, fields):
    model = trained("periodic", steps=60, code_steps=30)
    x = fields("periodic", 16, seed=99)
    s = model.encode(x)
    decoded = model.quantizer.quantize(s).quantized
    errors = [float((f - s).square().mean().detach()) for f in decoded]
    assert errors[1] < errors[0] < float(s.square().mean())
    assert float((model.decoder(decoded) - s).square().mean().detach()) < errors[1]


def test_codes_stay_once_the_decoder_learns(trained, fields):
    model = trained("periodic", steps=6)
    model.train().zero_grad()
    output = model(fields("periodic", 8))
    (output.reconstruction_loss + output.quantizer_loss).backward()
    assert not any(torch.any(p.grad != 0) for p in model.quantizer.parameters())
    assert any(torch.any(p.grad != 0) for p in model.decoder.parameters())


def test_every_parameter_has_a_gradient_in_every_phase(fields):
    model = LappedVQVAE2d(SPECS["periodic"], **SMALL).train()
    for step in range(8):
        model.zero_grad()
        output = model(fields("periodic", 8, seed=step))
        (output.reconstruction_loss + output.quantizer_loss).backward()
        assert all(p.grad is not None for p in model.parameters())


def test_search_never_decodes_worse_and_repeats_itself(trained, fields):
    model = trained("periodic", steps=60, code_steps=30)
    x = fields("periodic", 8, seed=99)
    plain, tokens = model.reconstruct(x), model.search(x, candidates=4)
    error, searched = ((y - x).square().mean() for y in (plain, model.decode(tokens)))
    assert searched < error
    again = model.search(x, candidates=4)
    assert all(torch.equal(a, b) for a, b in zip(tokens, again, strict=True))


def test_the_start_of_the_codes_is_not_in_half_precision(fields):
    models = [LappedVQVAE2d(SPECS["periodic"], **SMALL, decoder_patch=4).train() for _ in range(2)]
    for step in range(2):
        models[0](fields("periodic", 16, seed=step))
        with torch.autocast("cpu", torch.bfloat16):
            models[1](fields("periodic", 16, seed=step))
    for plain, mixed in zip(*(model.codebooks for model in models), strict=True):
        assert torch.equal(plain, mixed)


def test_state_of_a_half_trained_model_is_restored(trained, fields):
    for steps in (1, 4, 8):
        model = trained("periodic", steps=steps)
        other = LappedVQVAE2d(SPECS["periodic"], **SMALL)
        other.load_state_dict(model.state_dict())
        x = fields("periodic", 16, seed=7)
        first, second = (m.train()(x) for m in (model, other))
        assert torch.equal(first.reconstruction, second.reconstruction)
        assert torch.equal(first.quantizer_loss, second.quantizer_loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": [[3, 3], [4, 4]]}, "divide the sketch"),
        ({"sketch": [64, 64]}, "sketch"),
        ({"code_dims": [4]}, "code_dims must be an integer or 2 integers"),
    ],
)
def test_sizes_that_do_not_fit_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        LappedVQVAE2d(SPECS["periodic"], **{**SMALL, **changes})
