"""Timings of the core beside their floors; `python scripts/benchmark.py` runs them."""
