"""Meshes and particle sets of varying size in Zarr stores, as torch_geometric items and batches."""
