"""K-means."""

import torch

from gust_torch.models.kmeans import kmeans, squared_distances


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_separate_clusters_are_all_found():
    corners = 10.0 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    members = torch.tensor([40, 30, 20, 10])
    x = corners.repeat_interleave(members, 0) + 0.1 * torch.randn(100, 2, generator=generator())
    centers, shares = kmeans(x, 4, generator(1))
    nearest = squared_distances(corners, centers).argmin(1)
    assert nearest.unique().numel() == 4
    assert torch.allclose(shares[nearest], members / 100)
    means = torch.stack([part.mean(0) for part in x.split(members.tolist())])
    assert torch.allclose(centers[nearest], means, atol=1e-5)


def test_same_generator_gives_the_same_centers():
    x = torch.randn(500, 3)
    assert torch.equal(kmeans(x, 8, generator())[0], kmeans(x, 8, generator())[0])


def test_fewer_vectors_than_centers_repeat():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    centers, shares = kmeans(x, 5, generator())
    assert centers.shape == (5, 2)
    assert torch.equal(squared_distances(centers, x).amin(1), torch.zeros(5))
    assert shares.sum() == 1
    assert (shares > 0).sum() == 2
