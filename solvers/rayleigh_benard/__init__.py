"""Rayleigh-Bénard convection with Dedalus. Only `generate_rbc` and what builds on it import Dedalus."""

__all__: list[str] = []
