"""Run by test_distributed.py: trains a model on one process or two, and saves its state.

python distributed_worker.py WORLD_SIZE FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec

NUM_STEPS = 12
GLOBAL_BATCH = 8


def build() -> VQVAE2d:
    """Return a small model; quantization begins at step 4, and codes are replaced every 3 steps."""
    torch.manual_seed(0)
    return VQVAE2d(
        FieldSpec(names=("vorticity",), grid=(16, 8)),
        base_channels=8,
        channel_mult=(1, 1),
        num_res_blocks=1,
        codebook_dim=4,
        vocab_size=(3, 5, 16),
        scales=((1, 1), (2, 1), (4, 2)),
        attention_heads=2,
        autoencoder_steps=3,
        replace_every=3,
    )


def train(rank: int, world_size: int, folder: str) -> None:
    """Train on this rank's share of the same global batches."""
    torch.set_num_threads(1)
    model: nn.Module = build()
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world_size)
        model = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    share = GLOBAL_BATCH // world_size
    for step in range(NUM_STEPS):
        x = torch.randn(GLOBAL_BATCH, 1, 16, 8, generator=torch.Generator().manual_seed(step))
        output = model(x[rank * share : (rank + 1) * share])
        optimizer.zero_grad()
        (output.reconstruction_loss + output.quantizer_loss).backward()
        optimizer.step()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    torch.save(inner.state_dict(), Path(folder) / f"rank{rank}_of_{world_size}.pt")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    size, directory = int(sys.argv[1]), sys.argv[2]
    if size == 1:
        train(0, 1, directory)
    else:
        multiprocessing.spawn(train, (size, directory), nprocs=size)
