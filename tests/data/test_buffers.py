"""Memory of batches is taken again, but never while somebody can see it."""

import pickle

import torch

from gust_torch.data.buffers import MAX_BUFFERS, BufferPool


def test_memory_is_taken_again_when_free() -> None:
    pool = BufferPool()
    array = pool.empty((4, 8))
    place = array.ctypes.data
    del array
    assert pool.empty((4, 8)).ctypes.data == place


def test_a_view_or_tensor_keeps_its_memory() -> None:
    pool = BufferPool()
    tensor = torch.from_numpy(pool.empty((4, 8)))[2:].unbind(0)[1]
    view = pool.empty((4, 8))[1:]
    third = pool.empty((4, 8))
    places = {third.ctypes.data, view.base.ctypes.data, tensor.data_ptr() - 3 * 32}
    assert len(places) == 3


def test_the_pool_is_bounded_and_pickles_empty() -> None:
    pool = BufferPool()
    held = [pool.empty((2, 2)) for _ in range(MAX_BUFFERS + 3)]
    assert len(pool._arrays) == MAX_BUFFERS
    assert len({array.ctypes.data for array in held}) == len(held)
    assert pickle.loads(pickle.dumps(pool))._arrays == []
