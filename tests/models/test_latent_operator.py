"""The latent operator: persistence at first, conditioning, frozen autoencoder, checkpoints."""

import inspect
import math

import pytest
import torch

from gust_torch.checkpoint import load_model, save_model
from gust_torch.models.attention import AttentionBlock
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.spec import FieldSpec

LINE = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
TINY = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_heads": 2, "num_layers": 1, "num_frequencies": 3}
PARAMETERS = torch.tensor([[0.01, 1.0], [0.1, 2.0], [1.0, 3.0]])
TIME_STEPS = torch.tensor([0.1, 0.2])


def operator(parameter_names=("nu", "rho"), **sizes):
    """Return a tiny operator with statistics."""
    torch.manual_seed(0)
    architecture = LatentAutoencoder(LINE, **TINY).architecture()
    sizes = {"width": 16, "num_layers": 2, "num_heads": 2} | sizes
    model = LatentOperator(LINE, autoencoder=architecture, parameter_names=parameter_names, **sizes)
    model.set_conditioning(PARAMETERS[:, : len(parameter_names)], TIME_STEPS)
    return model


def awake(**options):
    """Return an operator whose layers that begin at zero don't."""
    model = operator(**options)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def latents(num=3):
    """Return what an encoder gives."""
    values = torch.randn(num, 4, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.layer_norm(values, (8,))


def test_a_new_operator_stands_still():
    model, z = operator(), latents()
    for state in model.rollout(z, torch.full((3, 4), 0.1), PARAMETERS):
        assert torch.allclose(state, z, atol=1e-4)  # the norm's epsilon, four times
    moved = awake().step(z, torch.full((3,), 0.1), PARAMETERS)
    assert not torch.allclose(moved, z, atol=0.1)
    assert torch.allclose(moved.mean(-1), torch.zeros(3, 4), atol=1e-5)
    assert torch.allclose(moved.var(-1, correction=0), torch.ones(3, 4), atol=1e-3)


def test_a_rollout_is_lazy_and_repeats_the_step():
    model, z = awake(), latents()
    time_steps = torch.tensor([[0.1, 0.2, 0.1]]).expand(3, -1)
    states = model.rollout(z, time_steps, PARAMETERS)
    assert inspect.isgenerator(states)
    first = next(states)
    assert torch.equal(first, model.step(z, time_steps[:, 0], PARAMETERS))
    assert torch.equal(next(states), model.step(first, time_steps[:, 1], PARAMETERS))
    assert model(z, time_steps, PARAMETERS).shape == (3, 3, 4, 8)


def test_time_step_and_each_parameter_matter_and_samples_do_not_mix():
    model, z = awake(), latents()
    dt = torch.full((3,), 0.1)
    reference = model.step(z, dt, PARAMETERS)
    assert not torch.allclose(model.step(z, 2 * dt, PARAMETERS), reference, atol=1e-4)
    for column in range(2):
        other = PARAMETERS.clone()
        other[0, column] *= 2
        changed = model.step(z, dt, other)
        assert not torch.allclose(changed[0], reference[0], atol=1e-4)
        assert torch.allclose(changed[1:], reference[1:], atol=1e-6)
    assert not torch.allclose(model.step(z.flip(1), dt, PARAMETERS).flip(1), reference, atol=1e-3)


def test_wide_positive_parameters_enter_by_their_logarithm():
    model = operator()
    assert model.condition_log.tolist() == [True, True, False]  # dt, nu over two decades, rho
    assert model.condition_mean.tolist() == pytest.approx([math.log(0.02) / 2, math.log(0.1), 2.0])
    assert model.condition_std.tolist() == pytest.approx(
        [math.log(2.0) / 2, math.log(10.0) * (2 / 3) ** 0.5, (2 / 3) ** 0.5]
    )
    assert model.time_step_range.tolist() == pytest.approx([0.1, 0.2])
    model.set_conditioning(torch.tensor([[-1.0, 5.0], [20.0, 5.0]]), torch.tensor([0.1, 0.1 + 1e-7]))
    assert model.condition_log.tolist() == [True, False, False]
    assert model.condition_std.tolist() == pytest.approx([1.0, 10.5, 1.0])  # constants are not blown up
    model.set_conditioning(torch.tensor([[2e-5, 1e6], [4e-5, 1e6 + 1]]), TIME_STEPS)
    assert model.condition_std.tolist()[1:] == pytest.approx([1e-5, 1.0])  # in no unit of their own


def test_an_operator_without_parameters():
    model, z = awake(parameter_names=()), latents()
    assert model.step(z, torch.full((3,), 0.1), torch.zeros(3, 0)).shape == z.shape


@pytest.mark.parametrize(
    ("parameters", "time_steps", "message"),
    [
        (PARAMETERS[:, :1], TIME_STEPS, r"parameters \(n, 2\) for \['nu', 'rho'\], got \(3, 1\)"),
        (PARAMETERS / 0, TIME_STEPS, "6 of them NaN or infinite"),
        (PARAMETERS, torch.tensor([0.1, 0.0]), "times are missing or do not increase"),
        (PARAMETERS, torch.tensor([torch.nan]), "times are missing"),
        (PARAMETERS, torch.zeros(0), "times are missing"),
    ],
)
def test_conditions_that_cannot_be_standardized(parameters, time_steps, message):
    with pytest.raises(ValueError, match=message):
        operator().set_conditioning(parameters, time_steps)


def test_the_autoencoder_is_frozen_and_all_else_has_a_gradient():
    model = awake().train()
    assert model.training
    assert not any(module.training for module in model.autoencoder.modules())
    assert not any(p.requires_grad for p in model.autoencoder.parameters())
    z = model.encode(torch.randn(3, 1, 16, 1))
    assert not z.requires_grad
    model(z, torch.full((3, 2), 0.1), PARAMETERS).square().mul(torch.randn(4, 8)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("autoencoder.")}


def test_encoding_does_not_depend_on_autocast():
    model, x = operator(), torch.randn(3, 1, 16, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.encode(x)
        assert not torch.equal(mixed, model.autoencoder.encode(x).float())
    assert torch.equal(mixed, model.encode(x))


def test_a_few_steps_teach_a_motion_that_depends_on_a_parameter():
    model = operator(width=32, num_heads=4)
    z, dt = latents(24), torch.full((24,), 0.1)
    parameters = torch.tensor([[0.01, 1.0], [1.0, 3.0]]).repeat(12, 1)
    target = torch.where(parameters[:, :1, None] < 0.1, z.roll(1, 1), -z)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    for _ in range(100):
        loss = (model.step(z, dt, parameters) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * (z - target).square().mean()


def test_an_operator_comes_back_from_its_file_alone(tmp_path):
    model, x = awake().eval(), torch.randn(3, 1, 16, 1)
    model.autoencoder.set_statistics(torch.tensor([3.0]), torch.tensor([2.0]))
    save_model(model, tmp_path / "model.ckpt")
    again = load_model(tmp_path / "model.ckpt", LatentOperator)
    assert (again.spec, again.parameter_names) == (model.spec, ("nu", "rho"))
    assert again.architecture() == model.architecture()
    dt = torch.full((3,), 0.1)
    coordinates = torch.rand(5, 1)

    @torch.no_grad()
    def fields(one):
        return one.autoencoder.decode(one.step(one.encode(x), dt, PARAMETERS), coordinates)

    assert torch.equal(fields(again), fields(model))
    with pytest.raises(ValueError, match="holds a LatentOperator, expected a LatentAutoencoder"):
        load_model(tmp_path / "model.ckpt", LatentAutoencoder)
    with pytest.raises(ValueError, match="num_heads=3 does not divide width=16"):
        operator(num_heads=3)


def test_attention_begins_with_logits_of_variance_one():
    block = AttentionBlock(256, 8, cross=False)
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    queries, keys = block.to_query(x), block.to_key_value(x).unflatten(-1, (8, -1))[..., :32].flatten(-2)
    logits = torch.einsum("mhe,nhe->hmn", queries.unflatten(-1, (8, 32)), keys.unflatten(-1, (8, 32)))
    assert 0.7 < float((logits / 32**0.5).var()) < 1.4


def test_checkpoints_without_the_range_of_the_parameters_can_be_read():
    model = operator()
    state = model.state_dict()
    del state["parameter_range"]
    again = operator()
    known = again.parameter_range.clone()
    again.load_state_dict(state)
    assert torch.equal(again.parameter_range, known)
