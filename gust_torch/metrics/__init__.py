"""Metrics of fields: spectra, pointwise errors, value distributions. Pure torch, no I/O."""
