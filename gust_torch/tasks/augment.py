"""Symmetries of the data as augmentation."""

import torch


def random_shifts(x: torch.Tensor, boundary: tuple[str, str], generator: torch.Generator) -> torch.Tensor:
    """Shift each sample by a random number of cells along its periodic axes.

    Args:
        x: Fields (b, c, h, w).
        boundary: Per axis "periodic" or "wall".
        generator: CPU generator, the only source of randomness.

    Returns:
        (b, c, h, w), out[i, :, p, q] = x[i, :, p + s_i mod h, q + t_i mod w].
    """
    b, _, h, w = x.shape
    places = []
    for n, kind in zip((h, w), boundary, strict=True):
        shifts = torch.randint(n, (b, 1), generator=generator) if kind == "periodic" else torch.zeros(b, 1)
        places.append((torch.arange(n) + shifts).remainder(n).long().to(x.device))
    rows, columns = places
    samples = torch.arange(b, device=x.device)[:, None, None]
    return x[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
