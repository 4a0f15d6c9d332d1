"""Loaders of the Lightning data module, and a run of a few steps."""

import lightning
import pytest
import torch
from torch import Tensor

from gust_torch import GraphDataModule


class MeanHeight(lightning.LightningModule):
    """Predicts a constant; counts what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.height = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch) -> Tensor:
        self.seen.append(batch.ptr.diff().tolist())
        return (batch.y - self.height).square().mean()

    def validation_step(self, batch) -> None:
        assert batch.laplacian.layout == torch.sparse_csr

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_fit(write_store, meshes, tmp_path) -> None:
    train, val = write_store(meshes, name="a.zarr"), write_store(meshes[:2], name="b.zarr")
    data = GraphDataModule(str(train), str(val), batch_size=2, seed=3)
    model = MeanHeight()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    # Five graphs in batches of two: the last one waits for another epoch.
    epochs = [[size for sizes in model.seen[start : start + 2] for size in sizes] for start in (0, 2, 4)]
    assert all(len(set(epoch) & {5, 6, 9, 14, 30}) == 4 for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_validation_is_in_order_and_optional(write_store, meshes) -> None:
    path = str(write_store(meshes))
    data = GraphDataModule(path, path, batch_size=3)
    assert [batch.ptr.diff().tolist() for batch in data.val_dataloader()] == [[9, 5, 14], [30, 6]]
    assert GraphDataModule(path).val_dataloader() == []
    with pytest.raises(ValueError, match="no test store: give test_path"):
        GraphDataModule(path).setup("test")


def test_particles(write_store, particles) -> None:
    samples = [
        arrays | {name: arrays[name][:2] for name in ("positions", "velocities")} for arrays in particles
    ]
    data = GraphDataModule(str(write_store(samples)), kind="particles", batch_size=4, block_size=2)
    batch = next(iter(data.train_dataloader()))
    assert batch.positions.shape == (28, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"num_workers": -1}, "num_workers >= 0"),
        ({"block_size": 0}, "block_size >= 1"),
        ({"kind": "grid"}, "expected one of mesh, particles"),
    ],
)
def test_refused_settings(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphDataModule("a.zarr", **arguments)
