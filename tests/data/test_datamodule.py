"""FieldDataModule: split, statistics, order, exact resumption, ranks."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from gust_torch.data.datamodule import FieldDataModule


def numbered_frames(n: int) -> np.ndarray:
    """Frames (n, 6, 4) float32 of noise whose first value is the frame's number."""
    frames = np.random.default_rng(0).standard_normal((n, 6, 4)).astype(np.float32)
    frames[:, 0, 0] = np.arange(n)
    return frames


def numbers(batch: Tensor) -> list[int]:
    """Frame numbers of a batch of `numbered_frames`."""
    return batch[:, 0, 0, 0].int().tolist()


def test_loaders(write_file) -> None:
    data = FieldDataModule(write_file("a.h5", {"v": numbered_frames(100)}), batch_size=8, block_size=2)
    data.setup("fit")
    train = list(data.train_dataloader())
    assert len(train) == 85 // 8
    assert all(batch.shape == (8, 1, 6, 4) and batch.dtype == torch.float32 for batch in train)
    seen = [number for batch in train for number in numbers(batch)]
    assert len(set(seen)) == len(seen)
    assert max(seen) < 85  # 10 frames validate, 5 are the gap
    assert [numbers(batch) for batch in data.val_dataloader()] == [list(range(90, 98)), [98, 99]]
    predicted = [number for batch in data.predict_dataloader() for number in numbers(batch)]
    assert predicted == list(range(100))


def test_windows_and_fields(write_file) -> None:
    path = write_file("a.h5", {"v": numbered_frames(40), "w": numbered_frames(40)})
    data = FieldDataModule(path, fields=["w"], n_steps=3, stride=2, batch_size=4)
    assert data.spec.names == ("w",)
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (4, 3, 1, 6, 4)
    assert bool((batch[:, :, 0, 0, 0].diff(dim=1) == 2).all())


def test_statistics_are_those_of_the_training_set(write_file) -> None:
    frames = numbered_frames(100)
    frames[85:] += 1000
    data = FieldDataModule(write_file("a.h5", {"v": frames}))
    mean, std = data.statistics()
    assert mean.shape == std.shape == (1, 1, 1)
    assert mean.item() == pytest.approx(frames[:85].mean(dtype=np.float64), rel=1e-5)
    assert std.item() == pytest.approx(frames[:85].std(dtype=np.float64), rel=1e-5)


def test_whole_trajectories_validate(write_file) -> None:
    path = write_file("a.h5", {"v": numbered_frames(40)}, np.repeat(np.arange(4), 10))
    data = FieldDataModule(path, val_fraction=0.25, batch_size=10)
    (val,) = data.val_dataloader()
    assert len({number // 10 for number in numbers(val)}) == 1
    train = {number for batch in data.train_dataloader() for number in numbers(batch)}
    assert not train & set(numbers(val))
    assert len(train) == 30


def test_small_sets_and_no_validation(write_file) -> None:
    data = FieldDataModule(write_file("a.h5", {"v": numbered_frames(5)}), val_fraction=0.0, batch_size=16)
    assert data.val_dataloader() == []
    assert [len(batch) for batch in data.train_dataloader()] == [5]


def test_default_blocks(write_file) -> None:
    data = FieldDataModule(write_file("a.h5", {"v": numbered_frames(50)}), batch_size=16)
    assert data.train_dataloader().sampler.block_size == 4  # a quarter of a batch
    data = FieldDataModule(write_file("b.h5", {"v": np.zeros((8, 512, 512), np.float32)}))
    assert data.train_dataloader().sampler.block_size == 1  # a frame is 1 MiB


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"num_workers": -1}])
def test_bad_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FieldDataModule("a.h5", **arguments)


def test_a_bad_file_stops_setup(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.h5"):
        FieldDataModule(str(tmp_path / "none.h5")).setup("fit")


class Recorder(LightningModule):
    """Notes the frames of each finished training step; fails in a chosen one."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.seen: list[list[int]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.fail_at is not None and self.global_step == self.fail_at:
            raise RuntimeError("power cut")
        return (self.weight * batch).mean()

    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(numbers(batch))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    data: FieldDataModule,
    model: Recorder,
    *callbacks: object,
    ckpt_path: str | None = None,
    limit: float = 1.0,
) -> list[list[int]]:
    """Train for three epochs; the frames of each step."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        limit_train_batches=limit,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model.seen


# 43 training frames in batches of 5: 8 steps an epoch.
@pytest.mark.parametrize(
    ("num_workers", "fail_at", "save_every", "resumes_from", "limit"),
    [
        (0, 13, 3, 12, 1.0),  # saved and stopped within the second epoch
        (2, 10, 8, 8, 1.0),  # saved in the last step of the first epoch
        (0, 10, None, 8, 1.0),  # saved after the first epoch's validation
        (2, 3, 1, 3, 1.0),
        (0, 7, 5, 5, 5),  # epochs of five batches
        (2, 8, 2, 8, 5),
    ],
)
def test_resuming_repeats_and_skips_nothing(
    write_file,
    tmp_path: Path,
    num_workers: int,
    fail_at: int,
    save_every: int | None,
    resumes_from: int,
    limit: float,
) -> None:
    path = write_file("a.h5", {"v": numbered_frames(52)})

    def data() -> FieldDataModule:
        return FieldDataModule(path, batch_size=5, num_workers=num_workers, block_size=2, seed=3)

    uninterrupted = fit(data(), Recorder(), limit=limit)
    assert len(uninterrupted) == (24 if limit == 1.0 else 15)
    assert uninterrupted[0] != uninterrupted[8 if limit == 1.0 else 5]
    save = ModelCheckpoint(tmp_path, every_n_train_steps=save_every, save_last=True)
    stopped = Recorder(fail_at)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(data(), stopped, save, limit=limit)
    assert stopped.seen == uninterrupted[:fail_at]
    resumed = fit(data(), Recorder(), ckpt_path=str(tmp_path / "last.ckpt"), limit=limit)
    assert resumed == uninterrupted[resumes_from:]


def test_a_step_that_failed_is_repeated(write_file, tmp_path: Path) -> None:
    path = write_file("a.h5", {"v": numbered_frames(52)})

    def data() -> FieldDataModule:
        return FieldDataModule(path, batch_size=5, num_workers=2, seed=3)

    uninterrupted = fit(data(), Recorder())
    with pytest.raises(RuntimeError, match="power cut"):
        fit(data(), Recorder(11), OnExceptionCheckpoint(tmp_path, filename="stopped"))
    assert fit(data(), Recorder(), ckpt_path=str(tmp_path / "stopped.ckpt")) == uninterrupted[11:]


def test_resuming_with_other_settings_warns(write_file, caplog) -> None:
    path = write_file("a.h5", {"v": numbered_frames(52)})
    loader = FieldDataModule(path, batch_size=5).train_dataloader()
    next(iter(loader))
    state = loader.state_dict()
    assert state["position"] == 5
    other = FieldDataModule(path, batch_size=4).train_dataloader()
    other.load_state_dict(state)
    assert "batch_size was 5, is 4 now" in caplog.text
    assert len(list(other)) == 10  # 43 training samples


def test_two_ranks_see_everything_once(write_file) -> None:
    data = FieldDataModule(write_file("a.h5", {"v": numbered_frames(24)}), batch_size=3, val_fraction=0.0)
    seen = {}
    for epoch in range(2):
        for rank in range(2):
            data.trainer = SimpleNamespace(
                world_size=2, global_rank=rank, current_epoch=epoch, overfit_batches=0
            )
            loader = data.train_dataloader()
            assert isinstance(loader.sampler, DistributedSampler)  # Lightning replaces all others
            seen[epoch, rank] = [number for batch in loader for number in numbers(batch)]
        assert sorted(seen[epoch, 0] + seen[epoch, 1]) == list(range(24))
    assert seen[0, 0] != seen[1, 0]


@pytest.mark.parametrize("copied", [False, True])
def test_a_copy_is_refused_but_not_one_that_agrees_at_its_ends(write_file, copied: bool) -> None:
    """Periodic motions at several speeds begin and end alike."""
    frames = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype(np.float32)
    frames[:, 0], frames[:, -1] = frames[0, 0], frames[0, -1]
    if copied:
        frames[3] = frames[2]
    path = write_file("a.h5", {"v": frames.reshape(24, 6, 4)}, trajectory=np.repeat(np.arange(4), 6))
    data = FieldDataModule(path, val_fraction=0.25, batch_size=2)
    if copied:
        with pytest.raises(ValueError, match="trajectory 3 repeats trajectory 2"):
            data.setup("fit")
    else:
        data.setup("fit")
