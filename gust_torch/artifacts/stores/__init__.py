"""Where packaged datasets are kept: W&B, or any place that fsspec reaches.

One contract, `Store` for writing and `RemoteFile` for reading, and two implementations. Neither wandb nor
s3fs is imported before it is needed.
"""

from gust_torch.artifacts.stores.contract import Reference, RemoteFile, Store, Upload
from gust_torch.artifacts.stores.opening import open_reference, open_store

__all__ = ["Reference", "RemoteFile", "Store", "Upload", "open_reference", "open_store"]
