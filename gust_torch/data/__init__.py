"""Datasets and data modules over files of the common HDF5 format."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.data.datamodule import FieldDataModule
    from gust_torch.data.hdf5_dataset import HDF5Dataset
    from gust_torch.data.loader import FrameBatch, ResumableLoader, collate_frames
    from gust_torch.data.sampler import BlockShuffleSampler
    from gust_torch.data.statistics import channel_statistics

__all__ = [
    "BlockShuffleSampler",
    "FieldDataModule",
    "FrameBatch",
    "HDF5Dataset",
    "ResumableLoader",
    "channel_statistics",
    "collate_frames",
]

# Only the data module needs Lightning, whose import takes seconds.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "BlockShuffleSampler": "gust_torch.data.sampler",
        "FieldDataModule": "gust_torch.data.datamodule",
        "FrameBatch": "gust_torch.data.loader",
        "HDF5Dataset": "gust_torch.data.hdf5_dataset",
        "ResumableLoader": "gust_torch.data.loader",
        "channel_statistics": "gust_torch.data.statistics",
        "collate_frames": "gust_torch.data.loader",
    },
)
