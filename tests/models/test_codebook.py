"""Moving averages and replacement of codes."""

import pytest
import torch

from gust_torch.models.codebook import EMACodebooks

DECAY = 0.9


def centered_step(book, seed=0):
    """Random vectors with zero mean at each scale (so that the moving mean stays), and their codes."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(4, book.vectors.shape[1], n, 1, generator=generator) for n in book.tokens]
    vectors = [u - u.mean((0, 2, 3), keepdim=True) for u in vectors]
    return [book.nearest(k, u) for k, u in enumerate(vectors)], vectors


def test_nearest_is_the_euclidean_one():
    book = EMACodebooks((7, 9), 3, (2, 4), DECAY)
    for k, size in enumerate((7, 9)):
        u = torch.randn(5, 3, 2, 3)
        rows = u.permute(0, 2, 3, 1)
        distances = (rows[..., None, :] - book.codebooks()[k]).square().sum(-1)
        assert distances.shape[-1] == size
        assert torch.equal(book.nearest(k, u), distances.argmin(-1))
        assert torch.equal(
            book.lookup(k, book.nearest(k, u)).permute(0, 2, 3, 1), book.codebooks()[k][distances.argmin(-1)]
        )


def test_update_is_an_exponential_moving_average_of_sums():
    book = EMACodebooks((3, 4), 2, (3, 4), DECAY)  # one vector per code at both scales: equal decays
    counts, sums = (
        [c.clone() for c in book.counts.split((3, 4))],
        [s.clone() for s in book.sums.split((3, 4))],
    )
    indices, vectors = centered_step(book)
    book.update(indices, vectors, step=1)
    for k in range(2):
        one_hot = torch.nn.functional.one_hot(indices[k].flatten(), book.sizes[k]).float()
        rows = vectors[k].permute(0, 2, 3, 1).reshape(-1, 2)
        expected_counts = DECAY * counts[k] + (1 - DECAY) * one_hot.sum(0)
        expected_sums = DECAY * sums[k] + (1 - DECAY) * one_hot.T @ rows
        assert torch.allclose(book.counts.split((3, 4))[k], expected_counts)
        assert torch.allclose(book.sums.split((3, 4))[k], expected_sums, atol=1e-6)
        assert torch.allclose(book.codebooks()[k], expected_sums / expected_counts[:, None], atol=1e-6)


def test_scales_with_fewer_vectors_per_code_average_over_more_steps():
    book = EMACodebooks((16, 16), 2, (1, 4), DECAY)
    rates = [part[0] for part in book._rates.split((16, 16))]
    assert rates[1] == pytest.approx(1 - DECAY)
    assert rates[0] == pytest.approx((1 - DECAY) / 2)


def test_codes_follow_a_shift_of_all_vectors():
    book = EMACodebooks((4,), 2, (8,), 0.999)
    _, (u,) = centered_step(book)
    book.initialize(0, u, batch_size=4, generator=torch.Generator().manual_seed(0))
    before = book.vectors.clone()
    shift = torch.tensor([5.0, -3.0])
    for step in range(60):
        moved = u + shift[:, None, None]
        book.update([book.nearest(0, moved)], [moved], step=step)
    # the averages alone would have gone 6 % of the way in 60 steps
    assert torch.allclose(book.vectors, before + shift, atol=0.1)


def test_dead_codes_become_far_recent_vectors():
    book = EMACodebooks((6,), 2, (1,), DECAY)
    book.vectors.copy_(torch.tensor([[0.0, 0.0], *[[-500.0, 300.0 * j] for j in range(5)]]))
    book.sums.copy_(book.vectors)
    near, first = torch.zeros(6, 2, 1, 1), torch.zeros(6, 1, 1, dtype=torch.int64)
    for step in range(40):
        book.update([first], [near], step=step)
    assert (book.counts[1:] < 0.05).all()
    # With zero mean they shift no code, and so the only vectors at a distance from a code are these six.
    far = 50.0 * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]])
    book.update([first], [far[:, :, None, None]], step=40)
    assert book.replace_dead(torch.Generator().manual_seed(0)) == [5]
    assert (torch.cdist(book.vectors[1:], far) < 1e-3).sum(1).tolist() == [1] * 5
    assert book.vectors[1:].unique(dim=0).shape[0] == 5
    fair = book.counts[1]
    assert (book.counts[1:] == fair).all()
    assert torch.equal(book.sums[1:], book.vectors[1:] * fair)
    assert book.replace_dead(torch.Generator().manual_seed(0)) == [0]
