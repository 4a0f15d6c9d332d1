"""Latents of whole data sets, computed once: `scripts/precompute_latent_cache.py`."""
