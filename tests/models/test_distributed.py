"""Two processes train as one with the joint batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).parent / "distributed_worker.py"


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Return the final states of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("distributed")
    for world_size in ("1", "2"):
        subprocess.run([sys.executable, str(WORKER), world_size, str(folder)], check=True, timeout=300)
    names = ("rank0_of_1", "rank0_of_2", "rank1_of_2")
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in names]


def tensors(state):
    return {name: value.nan_to_num(9.0) for name, value in state.items() if isinstance(value, torch.Tensor)}


def test_ranks_are_bit_identical(states):
    for name, value in tensors(states[1]).items():
        assert torch.equal(value, tensors(states[2])[name]), name


def test_two_processes_give_the_codebooks_of_one_with_twice_the_batch(states):
    one, two = tensors(states[0]), tensors(states[1])
    assert not torch.equal(one["quantizer.ema.vectors"], torch.zeros_like(one["quantizer.ema.vectors"]))
    for name, value in one.items():
        # sums in another order: float32 round-off, amplified over the steps
        assert torch.allclose(value, two[name], atol=1e-5, rtol=1e-4), name


def test_training_state_agrees(states):
    for state in states:
        extra = state["quantizer._extra_state"]
        assert extra == {"step": 12, "initialized": True, "reservoir": []}
