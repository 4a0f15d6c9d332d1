"""The latent autoencoder on grids, meshes and particles: shapes, symmetries, overfitting."""

import math

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from gust_torch.checkpoint import load_model, save_model
from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.errors import point_vrmse, vrmse
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.points import grid_coordinates, grid_points, pad
from gust_torch.spec import FieldSpec

KINDS = ("grid", "mesh", "particles")
LINE = FieldSpec(names=("u",), grid=(64, 1), lengths=(2.0, 1.0))
MESH = GraphSpec(fields=("f", "u"), components=(1, 1), num_dims=2)
PARTICLES = GraphSpec(fields=("velocities",), components=(3,), num_dims=3, moving=True)
SPECS = {"grid": LINE, "mesh": MESH, "particles": PARTICLES}


def waves(num):
    """Steepening waves on a line, (num, 1, 64, 1), mean 3 and amplitude 5."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * math.pi * torch.arange(64) / 64
    phase, share = 2 * math.pi * torch.rand(2, num, 1, generator=generator)
    u = sum(torch.sin(k * (x + phase)) / k * torch.sin(share).abs() ** (k - 1) for k in range(1, 6))
    return (3 + 5 * u)[:, None, :, None]


def meshes(num):
    """Meshes of 40, 47, ... nodes with Poisson fields, one batch."""
    batches = pytest.importorskip("torch_geometric.data")
    from gust_torch.data.graphs.items import make_item
    from gust_torch.data.graphs.poisson import PoissonField
    from gust_torch.data.graphs.schema import MESH as KIND
    from gust_torch.data.graphs.schema import describe
    from gust_torch.data.graphs.synthetic import random_mesh

    samples = [random_mesh(40 + 7 * i, i) for i in range(num)]
    transform = PoissonField(0, lumped_mass=True)
    return batches.Batch.from_data_list([transform(make_item(KIND, a, describe(KIND, a))) for a in samples])


def particles(num, times=2):
    """Particles in swirls about random axes, (p, times, 3) with 30, 35, ... of them; chains for edges."""
    graphs = pytest.importorskip("torch_geometric.data")
    from gust_torch.data.graphs.items import GraphData

    generator = torch.Generator().manual_seed(0)
    items = []
    for i in range(num):
        count = 30 + 5 * i
        positions = torch.rand(count, times, 3, generator=generator)
        axis = torch.randn(3, generator=generator).sign() + 0.5 * torch.rand(3, generator=generator)
        velocities = 2 + torch.linalg.cross(axis.expand_as(positions), torch.sin(3 * positions))
        chain = torch.stack([torch.arange(count - 2), torch.arange(1, count - 1)])
        edges = torch.cat([chain, chain.flip(0)], 1)
        items.append(
            GraphData(pos=positions[:, 0], positions=positions, velocities=velocities, edge_index=edges)
        )
    return graphs.Batch.from_data_list(items)


BATCHES = {"grid": waves, "mesh": meshes, "particles": particles}


def small(kind, num=3, spec=None, **sizes):
    """Return a model with the statistics of the batch of `num` samples, and the batch."""
    batch = BATCHES[kind](num)
    torch.manual_seed(0)
    small_sizes = {"latent_len": 8, "latent_dim": 16, "width": 32, "num_local_layers": 1, "num_layers": 1}
    small_sizes |= {"num_decoder_layers": 1, "num_heads": 2, "num_frequencies": 3}
    model = LatentAutoencoder(SPECS[kind] if spec is None else spec, **{**small_sizes, **sizes})
    points = model.points(batch)
    model.set_statistics(points.values.mean(0), points.values.std(0))
    if kind != "grid":
        model.unit.set(points.coordinates.amin(0), points.coordinates.amax(0))
    return model, batch


@pytest.mark.parametrize("kind", KINDS)
def test_a_handful_of_samples_is_learned(kind):
    num = 2 if kind == "particles" else 3  # two times each
    model, batch = small(kind, num, latent_len=12, latent_dim=32, width=48, num_heads=4)
    points = model.points(batch)
    steps, peak = 300, 8e-3
    optimizer = torch.optim.AdamW(model.parameters(), peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps)
    for _ in range(steps):
        loss = ((model(batch, points) - points.values) / model.std).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        errors = point_vrmse(model.reconstruct(batch), points.values, points.sample, points.num_samples)
    assert float(errors.max()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_answers_at_other_coordinates(kind):
    model, batch = small(kind)
    num = 6 if kind == "particles" else 3  # two times each
    latent = model.encode(batch)
    assert latent.shape == (num, 8, 16)
    assert torch.allclose(latent.mean(-1), torch.zeros(num, 8), atol=1e-5)
    dims, channels = model.unit.lower.numel(), model.spec.num_channels
    queries = torch.rand(num, 11, dims)
    answers = model.decode(latent, queries)
    assert answers.shape == (num, 11, channels)
    assert torch.allclose(model.decode(latent, queries[0])[0], answers[0], atol=1e-5)
    ragged = model.decode_points(
        latent, torch.cat([queries[0, :4], queries[2]]), torch.tensor([0] * 4 + [2] * 11)
    )
    assert torch.allclose(ragged, torch.cat([answers[0, :4], answers[2]]), atol=1e-5)
    assert model.reconstruct(batch).shape == model.points(batch).values.shape


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind):  # which DistributedDataParallel relies on
    model, batch = small(kind)
    model.reconstruct(batch).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["mesh", "particles"])
def test_the_order_of_nodes_and_the_company_do_not_matter(kind):
    model, batch = small(kind, num_local_layers=2)
    item = batch.get_example(1) if kind == "particles" else meshes_item(batch, 1)
    order = torch.randperm(item.num_nodes, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    shuffled = item.clone()
    for name in ("pos", *({"positions", "velocities", "f", "u"} & set(item.keys()))):
        shuffled[name] = item[name][order]
    shuffled.edge_index = place[item.edge_index]
    alone = model.encode(item)
    assert torch.allclose(model.encode(shuffled), alone, atol=1e-5)
    size = len(alone)
    assert torch.allclose(model.encode(batch)[size : 2 * size], alone, atol=1e-5)
    moved = item.clone()
    moved.edge_index = item.edge_index.roll(1, 1)[:, : item.edge_index.shape[1] // 2]
    assert not torch.allclose(model.encode(moved), alone, atol=1e-3)  # the edges do


def meshes_item(batch, index):
    """One mesh of a batch; the batch's sparse Laplacian cannot be cut apart."""
    del batch.laplacian
    inside = batch.batch == index
    edges = batch.edge_index[:, inside[batch.edge_index[0]]] - batch.ptr[index]
    return type(batch.get_example(0))(
        pos=batch.pos[inside], f=batch.f[inside], u=batch.u[inside], edge_index=edges
    )


def test_each_time_of_a_particle_set_is_a_sample():
    model, batch = small("particles", num=2)
    points = model.points(batch)
    assert torch.bincount(points.sample).tolist() == [30, 30, 35, 35]
    assert torch.equal(points.coordinates[30:60], batch.positions[:30, 1])
    assert torch.equal(points.values[60:95], batch.velocities[30:, 0])
    later = batch.get_example(1)
    later.positions, later.velocities = later.positions[:, 1:], later.velocities[:, 1:]
    assert torch.allclose(model.encode(later), model.encode(batch)[3:], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_from_its_file_alone(kind, tmp_path):
    model, batch = small(kind)
    save_model(model, tmp_path / "model.ckpt")
    again = load_model(tmp_path / "model.ckpt", LatentAutoencoder)
    assert again.spec == model.spec
    assert again.architecture() == model.architecture()
    with torch.no_grad():
        assert torch.equal(again.reconstruct(batch), model.eval().reconstruct(batch))
    with pytest.raises(ValueError, match="holds a LatentAutoencoder, expected a VQVAE2d"):
        load_model(tmp_path / "model.ckpt")


def test_grid_points_are_rows_of_the_field_at_its_coordinates():
    spec = FieldSpec(names=("a", "b"), grid=(4, 3), boundary=("periodic", "wall"), lengths=(4.0, 6.0))
    coordinates = grid_coordinates(spec)
    assert coordinates[:4].tolist() == [[0, 1], [0, 3], [0, 5], [1, 1]]
    assert grid_coordinates(LINE)[:2].tolist() == [[0.0], [0.03125]]
    x = torch.randn(5, 2, 4, 3)
    points = grid_points(x, spec)
    assert torch.equal(points.values[12 + 7], x[1, :, 2, 1])
    x_hat = torch.randn(5, 2, 4, 3)
    errors = point_vrmse(grid_points(x_hat, spec).values, points.values, points.sample, 5)
    assert torch.allclose(errors, vrmse(x_hat, x), atol=1e-6)
    walls = FieldSpec(names=("a",), grid=(2, 8), boundary=("wall", "wall"), grid_y="chebyshev")
    y = grid_coordinates(walls)[:8, 1] / walls.lengths[1]
    assert np.allclose(y, 0.5 - 0.5 * np.cos(np.pi * (np.arange(8) + 0.5) / 8))


def test_two_dimensional_grids_with_walls():
    spec = FieldSpec(names=("a", "b"), grid=(16, 8), boundary=("periodic", "wall"))
    model = LatentAutoencoder(spec, latent_len=3, latent_dim=5, width=8, num_heads=2, patch_size=4)
    x = torch.randn(2, 2, 16, 8)
    assert model.encode(x).shape == (2, 3, 5)
    assert model.reconstruct(x).shape == (2 * 128, 2)
    with pytest.raises(ValueError, match=r"as \(b, 2, 16, 8\), got \(2, 2, 8, 16\)"):
        model.encode(x.mT)
    with pytest.raises(ValueError, match="patch_size=3 does not divide the grid 16x8"):
        LatentAutoencoder(spec, patch_size=3)
    with pytest.raises(ValueError, match="num_heads=3 does not divide width=8"):
        LatentAutoencoder(spec, width=8, num_heads=3)
    with pytest.raises(ValueError, match=r"expected latents \(b, 3, 5\)"):
        model.decode(torch.zeros(2, 5, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="DataBatch"):
        model.encode(meshes(1))


def test_graphs_with_other_fields_are_refused():
    model, batch = small("mesh")
    del batch.u
    with pytest.raises(ValueError, match="takes a field 'u' with 1 components"):
        model.encode(batch)
    with pytest.raises(ValueError, match="got a tensor"):
        model.encode(waves(1))
    with pytest.raises(ValueError, match="box of positive sides"):
        model.unit.set(torch.zeros(2), torch.tensor([1.0, 0.0]))


def test_padding_and_random_subsets_keep_rows_with_their_samples():
    rows, sample = torch.arange(5.0)[:, None], torch.tensor([0, 2, 2, 2, 3])
    padded, mask = pad(rows, sample, 4)
    assert mask.sum(1).tolist() == [1, 0, 3, 1]
    assert torch.equal(padded[mask], rows)
    assert padded[2, :, 0].tolist() == [1, 2, 3]
    points = grid_points(waves(4), LINE)
    part = points.subset(0.25, torch.Generator().manual_seed(0))
    assert 40 < len(part.sample) < 90
    assert torch.equal(
        part.values[:, 0], waves(4).reshape(4, 64)[part.sample, (part.coordinates[:, 0] * 32).long()]
    )


def test_a_graph_spec_names_its_channels_and_survives_a_dictionary():
    spec = GraphSpec(fields=("velocities", "charge", "modes"), components=(3, 1, 2), num_dims=3, moving=True)
    assert spec.names == ("velocities_x", "velocities_y", "velocities_z", "charge", "modes_0", "modes_1")
    assert GraphSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ValueError, match="expected the keys"):
        GraphSpec.from_dict({"fields": ["a"]})
    with pytest.raises(ValueError, match="distinct field names"):
        GraphSpec(fields=(), components=(), num_dims=2)
