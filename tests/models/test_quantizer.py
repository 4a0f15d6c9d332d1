"""The multi-scale residual quantizer: accumulation, gradients, loss, start of quantization."""

import pytest
import torch
import torch.nn.functional as F

from gust_torch.models.quantizer import MultiScaleQuantizer

SCALES = ((1, 1), (2, 1), (3, 2), (8, 4))
SIZES = (4, 5, 6, 7)


def quantizer(*, boundary=("periodic", "wall"), autoencoder_steps=0, replace_every=50, sizes=SIZES):
    torch.manual_seed(0)
    weights = {"rho": 0.5, "commitment_weight": 0.25, "decay": 0.99}
    steps = {"autoencoder_steps": autoencoder_steps, "replace_every": replace_every}
    return MultiScaleQuantizer(3, SCALES, sizes, boundary, **weights, **steps)


def latents(num=6, seed=1):
    return 2.0 * torch.randn(num, 3, 8, 4, generator=torch.Generator().manual_seed(seed))


def perturbed(q):
    """Return the same quantizer with φ away from the identity."""
    for parameter in q.phi.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return q


def partial_sums(q, indices):
    """f_1 .. f_S."""
    return [q.accumulate(indices[: k + 1]) for k in range(len(indices))]


def test_phi_is_the_identity_when_new():
    v = torch.randn(2, 3, 8, 4)
    for phi in quantizer().phi:
        assert torch.equal(phi(v), v)


def test_residuals_never_grow_when_each_codebook_holds_zero():
    q = quantizer().eval()
    for codebook in q.codebooks:
        codebook[0] = 0.0
    z = latents(32)
    f = partial_sums(q, q.quantize(z).indices)
    norms = torch.stack([(z - fk).square().sum((1, 2, 3)) for fk in [torch.zeros_like(z), *f]])
    assert (norms[1:] <= norms[:-1] * (1 + 1e-6)).all()
    assert (norms[-1] < norms[0]).all()


def test_accumulating_the_tokens_gives_the_quantized_latent_bit_for_bit():
    q = perturbed(quantizer())
    for training in (True, False):
        q.train(training)
        before = [codebook.clone() for codebook in q.codebooks]
        q.initialized = True  # keep the codebooks for this comparison
        output = q(latents())
        moved, q.ema.vectors[:] = q.ema.vectors.clone(), torch.cat(before)
        assert torch.equal(q.accumulate(output.indices), output.quantized)
        assert torch.equal(moved, torch.cat(before)) != training


def test_gradient_reaches_the_latent_unchanged_and_every_phi():
    q = perturbed(quantizer()).eval()
    z = latents().requires_grad_()
    seed = torch.randn_like(z)
    (q.quantize(z).quantized * seed).sum().backward()
    assert torch.equal(z.grad, seed)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in q.phi.parameters())


def test_loss_and_its_gradient_follow_the_formula():
    q = perturbed(quantizer()).eval()
    z = latents().requires_grad_()
    output = q.quantize(z)
    f = partial_sums(q, output.indices)
    beta = q.commitment_weight
    expected = sum((1 + beta) * F.mse_loss(z, fk) for fk in f) / len(f)
    assert torch.allclose(output.loss, expected)
    (gradient,) = torch.autograd.grad(output.loss, z)
    pull = sum(beta * 2 * (z - fk) / z.numel() for fk in f) / len(f)
    assert torch.allclose(gradient, pull.detach(), atol=1e-7)


def test_indices_are_the_nearest_codes_of_what_is_left():
    q = perturbed(quantizer()).eval()
    z = latents()
    indices = q.quantize(z).indices
    left = [z, *(z - fk for fk in partial_sums(q, indices)[:-1])]
    u = left[-1].permute(0, 2, 3, 1)  # the last scale is the latent grid itself
    assert torch.equal(indices[-1], torch.cdist(u, q.codebooks[-1]).argmin(-1))
    means = left[0].mean((2, 3))
    assert torch.equal(indices[0].flatten(), torch.cdist(means, q.codebooks[0]).argmin(-1))


def test_quantization_is_bypassed_then_starts_from_data():
    q = quantizer(autoencoder_steps=3, sizes=(2, 3, 4, 5))
    untouched = q.ema.vectors.clone()
    for step in range(3):
        z = latents(seed=step).requires_grad_()
        output = q(z)
        assert torch.equal(output.quantized, z)
        assert output.indices == []
        output.loss.backward()
        assert all(p.grad is not None for p in q.phi.parameters())  # as DDP wants it
    assert torch.equal(q.ema.vectors, untouched)
    z = latents(seed=3)
    output = q(z)
    assert [tuple(i.shape) for i in output.indices] == [(6, 1, 1), (6, 2, 1), (6, 3, 2), (6, 8, 4)]
    assert F.mse_loss(output.quantized, z) < 0.7 * z.square().mean()
    assert sum(book.unique(dim=0).shape[0] for book in q.codebooks) == 2 + 3 + 4 + 5


def test_counts_start_where_the_averages_would_settle():
    q = quantizer()
    q(latents(6))
    for counts, (h, w) in zip(q.ema.counts.split(SIZES), SCALES, strict=True):
        assert counts.sum() == pytest.approx(6 * h * w, rel=1e-5)


def test_training_continues_from_a_state_bit_for_bit():
    def run(q, steps):
        for step in steps:
            q(latents(seed=step))

    straight, first = (
        quantizer(autoencoder_steps=4, replace_every=3),
        quantizer(autoencoder_steps=4, replace_every=3),
    )
    run(straight, range(20))
    for interruption in (2, 9):  # with latents waiting for k-means, and after it
        start = 0 if interruption == 2 else 2
        run(first, range(start, interruption))
        second = quantizer(autoencoder_steps=4, replace_every=3)
        second.load_state_dict(first.state_dict())
        first = second
    run(first, range(9, 20))
    for name, value in straight.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(7), first.state_dict()[name].nan_to_num(7)), name


def test_autocast_does_not_reach_the_quantizer():
    q = quantizer()
    q(latents())
    q.eval()
    z = latents()
    plain = q.quantize(z)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = q.quantize(z)
        decoded = q.accumulate(mixed.indices)
    assert mixed.quantized.dtype == decoded.dtype == torch.float32
    assert torch.equal(mixed.quantized, plain.quantized)
    assert torch.equal(decoded, plain.quantized)
