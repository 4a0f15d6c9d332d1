"""The common HDF5 format: schema, writer, reader, checks, repacking."""
