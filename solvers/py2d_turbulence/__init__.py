"""Forced two-dimensional turbulence on a doubly periodic square, pseudo-spectral."""
