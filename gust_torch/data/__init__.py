"""Datasets and data modules over files of the common HDF5 format."""
