"""Where packaged datasets are kept: W&B, or any place that fsspec reaches.

One contract, `Store` for writing and `RemoteFile` for reading, and two implementations. Neither wandb nor
s3fs is imported before it is needed."""
