"""Latents of an autoencoder, computed once: content-addressed caches, and windows of them for training."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.latents.datamodule import LatentDataModule
    from gust_torch.latents.dataset import FrameWindowDataset, LatentBatch, LatentDataset, collate_windows
    from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, find_task_file, open_grid
    from gust_torch.latents.key import DataIdentity, LatentKey, data_identity, encoder_digest
    from gust_torch.latents.plan import CachePlan, Shard, plan_cache
    from gust_torch.latents.store import LatentCache
    from gust_torch.latents.writer import CacheWriter

__all__ = [
    "CachePlan",
    "CacheWriter",
    "DataIdentity",
    "FrameSource",
    "FrameWindowDataset",
    "GraphFrames",
    "GridFrames",
    "LatentBatch",
    "LatentCache",
    "LatentDataModule",
    "LatentDataset",
    "LatentKey",
    "Shard",
    "collate_windows",
    "data_identity",
    "encoder_digest",
    "find_task_file",
    "open_grid",
    "plan_cache",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CachePlan": "gust_torch.latents.plan",
        "CacheWriter": "gust_torch.latents.writer",
        "DataIdentity": "gust_torch.latents.key",
        "FrameSource": "gust_torch.latents.frames",
        "FrameWindowDataset": "gust_torch.latents.dataset",
        "GraphFrames": "gust_torch.latents.frames",
        "GridFrames": "gust_torch.latents.frames",
        "LatentBatch": "gust_torch.latents.dataset",
        "LatentCache": "gust_torch.latents.store",
        "LatentDataModule": "gust_torch.latents.datamodule",
        "LatentDataset": "gust_torch.latents.dataset",
        "LatentKey": "gust_torch.latents.key",
        "Shard": "gust_torch.latents.plan",
        "collate_windows": "gust_torch.latents.dataset",
        "data_identity": "gust_torch.latents.key",
        "encoder_digest": "gust_torch.latents.key",
        "find_task_file": "gust_torch.latents.frames",
        "open_grid": "gust_torch.latents.frames",
        "plan_cache": "gust_torch.latents.plan",
    },
)
