"""The whole model."""

import pytest
import torch

from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec

SPEC = FieldSpec(names=("vorticity",), grid=(32, 16))


def build(**changes):
    arguments = {
        "base_channels": 8,
        "channel_mult": (1, 1, 1),
        "num_res_blocks": 1,
        "codebook_dim": 4,
        "vocab_size": 4,
        "scales": ((1, 1), (4, 2)),
        "attention_heads": 2,
    }
    return VQVAE2d(SPEC, **{**arguments, **changes})


def test_decoding_tokens_gives_the_reconstruction_bit_for_bit(trained):
    model, x = trained
    tokens = model.tokenize(x)
    decoded = model.decode(tokens)
    assert decoded.shape == x.shape
    assert torch.equal(decoded, model.reconstruct(x))
    assert torch.equal(decoded, model(x).reconstruction)
    model.train()
    assert torch.equal(decoded, model(x).reconstruction)  # codebooks move after the pass, not within it


def test_tokens_have_the_shapes_of_the_scales(trained):
    model, x = trained
    for tokens, (h, w), size in zip(model.tokenize(x), model.scales, model.vocab_sizes, strict=True):
        assert tokens.shape == (4, h, w)
        assert tokens.dtype == torch.int64
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < size


def test_raw_fields_go_in_and_come_out(trained):
    model, x = trained
    z = model.encode(x)
    model.set_statistics(10 * model.mean, 10 * model.std)
    assert torch.allclose(model.encode(10 * x), z, atol=1e-4)
    f = model.quantizer.quantize(z).quantized
    assert model.decode_latent(f).std() > 5 * x.std() * 0.1


def test_one_sample_does_not_see_another(trained):
    model, x = trained
    assert torch.allclose(model.encode(x)[:2], model.encode(x[:2]), atol=1e-5)


def test_shifts_along_periodic_axes_commute(trained, spec):
    model, x = trained
    for axis, kind in zip((-2, -1), spec.boundary, strict=True):
        shifted = model.encode(x.roll(8, axis))  # one latent cell
        equal = torch.allclose(shifted, model.encode(x).roll(1, axis), atol=1e-4)
        assert equal == (kind == "periodic")


def test_every_parameter_has_a_gradient_before_and_after_quantization_begins(
    small_model, smooth_fields, spec
):
    model = small_model(spec, autoencoder_steps=1)
    for _ in range(2):
        output = model(smooth_fields(spec, 4))
        (output.reconstruction_loss + output.quantizer_loss).backward()
        assert all(p.grad is not None for p in model.parameters())
        model.zero_grad(set_to_none=True)


def test_training_lowers_the_loss(small_model, smooth_fields, train, spec):
    model = small_model(spec, autoencoder_steps=20)
    x = smooth_fields(spec, 2)
    model.set_statistics(x.mean((0, 2, 3)), x.std((0, 2, 3)))
    losses = train(model, [x] * 30, lr=1e-2)
    assert losses[19] < 0.8 * losses[0]
    assert losses[-1] < losses[0]  # quantized by now, with 8 codes a scale


def test_bits_per_pixel_counts_all_scales():
    assert build(vocab_size=(2, 16)).bits_per_pixel == pytest.approx((1 + 8 * 4) / (32 * 16))


@pytest.mark.parametrize(("patch_size", "num_stages"), [(1, 4), (2, 3), (4, 2), (8, 1)])
def test_patches_and_stages_share_the_downsampling(patch_size, num_stages):
    model = build(patch_size=patch_size, channel_mult=(1,) * num_stages, num_res_blocks=1)
    assert model.latent_grid == (4, 2)
    x = torch.randn(2, 1, 32, 16)
    assert model.reconstruct(x).shape == x.shape


def test_architecture_rebuilds_the_model():
    model = build(num_res_blocks=(0, 1, 2), vocab_size=(5, 6), use_norm=False, use_attention=False)
    again = VQVAE2d(SPEC, **model.architecture())
    assert again.architecture() == model.architecture()
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_mult": (1,) * 6}, r"32x16 is not divisible.*= 64; give channel_mult 4 entries"),
        ({"patch_size": 3}, "patch_size must be 1, 2, 4, 8 or 16"),
        ({"scales": ((1, 1), (2, 2))}, r"4x2 latent grid.*use scales \[\[1, 1\], \[2, 1\], \[4, 2\]\]"),
        ({"attention_heads": 3}, r"attention_heads=3 does not divide the 8 channels"),
        ({"num_res_blocks": (1, 1)}, r"num_res_blocks must be an integer or 3 integers"),
        ({"vocab_size": (4, 4, 4)}, r"vocab_size must be an integer or 2 integers"),
    ],
)
def test_architectures_that_cannot_work_name_the_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_fields_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"takes fields \['vorticity'\] as \(b, 1, 32, 16\).*\(2, 1, 16, 16\)"
    ):
        build().encode(torch.zeros(2, 1, 16, 16))


def test_statistics_of_constant_fields_are_refused():
    with pytest.raises(ValueError, match=r"std > 0.*leave constant fields out"):
        build().set_statistics(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("grid", [(64, 1), (1, 64)])
def test_an_axis_of_one_cell_is_never_halved(grid):
    spec = FieldSpec(names=("u",), grid=grid, lengths=(1.0, 1.0))
    flat = [[1, 1], [2, 1], [8, 1]] if grid[1] == 1 else [[1, 1], [1, 2], [1, 8]]
    sizes = {"base_channels": 8, "channel_mult": (1, 2), "codebook_dim": 4, "vocab_size": 8}
    model = VQVAE2d(spec, patch_size=4, num_res_blocks=1, attention_heads=2, scales=flat, **sizes)
    x = torch.randn(2, 1, *grid)
    assert model.latent_grid == tuple(flat[-1])
    assert model(x).reconstruction.shape == x.shape
    bands = ShellSpectrum(spec).band_errors(*2 * [ShellSpectrum(spec)(x).sum(0)])
    assert torch.equal(bands, torch.zeros(1, 3))
