"""Lapped VQ-VAE: tokens decode to the reconstruction, training phases, walls, several fields, search."""

import math

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


def fields(spec: FieldSpec, num: int, seed: int = 0) -> Tensor:
    """Draw smooth random fields (num, c, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    h, w = (torch.arange(n) / n * 2 * math.pi for n in spec.grid)
    x = torch.zeros(num, spec.num_channels, *spec.grid)
    for k in range(4):
        for m in range(4):
            a, b = torch.randn(2, num, spec.num_channels, 1, 1, generator=generator)
            wave = k * h[:, None] + m * w[None, :]
            x += (a * wave.cos() + b * wave.sin()) / (1 + k * k + m * m)
    return x


def trained(name: str, steps: int = 10, **changes: object) -> LappedVQVAE2d:
    """Train for some steps on random fields."""
    torch.manual_seed(0)
    spec = SPECS[name]
    sizes = (
        {"sketch": [16, 8] if name == "wall" else [12, 8], "decoder_patch": 2} if name != "periodic" else {}
    )
    model = LappedVQVAE2d(spec, **{**SMALL, **sizes, **changes})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    for step in range(steps):
        output = model(fields(spec, 16, seed=step))
        loss = output.reconstruction_loss + output.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", SPECS)
def test_tokens_decode_to_the_reconstruction_bit_for_bit(name: str) -> None:
    model = trained(name)
    x = fields(SPECS[name], 5, seed=99)
    tokens = model.tokenize(x)
    assert [tuple(index.shape) for index in tokens] == [(5, 2, 2), (5, 4, 4)]
    assert torch.equal(model.decode(tokens), model.reconstruct(x))
    assert model.decode(tokens).shape == x.shape


def test_each_scale_and_training_bring_the_field_nearer() -> None:
    model = trained("periodic", steps=60, code_steps=30)
    x = fields(SPECS["periodic"], 16, seed=99)
    s = model.encode(x)
    decoded = model.quantizer.quantize(s).quantized
    errors = [float((f - s).square().mean().detach()) for f in decoded]
    assert errors[1] < errors[0] < float(s.square().mean())
    assert float((model.decoder(decoded) - s).square().mean().detach()) < errors[1]


def test_codes_stay_once_the_decoder_learns() -> None:
    model = trained("periodic", steps=6)
    model.train().zero_grad()
    output = model(fields(SPECS["periodic"], 8))
    (output.reconstruction_loss + output.quantizer_loss).backward()
    assert not any(torch.any(p.grad != 0) for p in model.quantizer.parameters())
    assert any(torch.any(p.grad != 0) for p in model.decoder.parameters())


def test_every_parameter_has_a_gradient_in_every_phase() -> None:
    model = LappedVQVAE2d(SPECS["periodic"], **SMALL).train()
    for step in range(8):
        model.zero_grad()
        output = model(fields(SPECS["periodic"], 8, seed=step))
        (output.reconstruction_loss + output.quantizer_loss).backward()
        assert all(p.grad is not None for p in model.parameters())


def test_search_never_decodes_worse_and_repeats_itself() -> None:
    model = trained("periodic", steps=60, code_steps=30)
    x = fields(SPECS["periodic"], 8, seed=99)
    plain, tokens = model.reconstruct(x), model.search(x, candidates=4, sweeps=2)
    error, searched = ((y - x).square().mean() for y in (plain, model.decode(tokens)))
    assert searched < error
    again = model.search(x, candidates=4, sweeps=2)
    assert all(torch.equal(a, b) for a, b in zip(tokens, again, strict=True))


def test_the_start_of_the_codes_is_not_in_half_precision() -> None:
    models = [LappedVQVAE2d(SPECS["periodic"], **SMALL, decoder_patch=4).train() for _ in range(2)]
    for step in range(2):
        models[0](fields(SPECS["periodic"], 16, seed=step))
        with torch.autocast("cpu", torch.bfloat16):
            models[1](fields(SPECS["periodic"], 16, seed=step))
    for plain, mixed in zip(*(model.codebooks for model in models), strict=True):
        assert torch.equal(plain, mixed)


def test_state_of_a_half_trained_model_is_restored() -> None:
    spec = SPECS["periodic"]
    for steps in (1, 4, 8):
        model = trained("periodic", steps=steps)
        other = LappedVQVAE2d(spec, **SMALL)
        other.load_state_dict(model.state_dict())
        x = fields(spec, 16, seed=7)
        first, second = (m.train()(x) for m in (model, other))
        assert torch.equal(first.reconstruction, second.reconstruction)
        assert torch.equal(first.quantizer_loss, second.quantizer_loss)


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="divide the sketch"):
        LappedVQVAE2d(SPECS["periodic"], **{**SMALL, "scales": [[3, 3]], "vocab_size": [8], "code_dims": [4]})
    with pytest.raises(ValueError, match="sketch"):
        LappedVQVAE2d(SPECS["periodic"], **SMALL, sketch=[64, 64])
