"""Latents of whole data sets, computed once: `scripts/precompute_latent_cache.py`."""

from gust_torch._lazy import lazy_exports

__all__ = ["Compute", "Outcome", "Request", "precompute"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Compute": "gust_torch.precompute.options",
        "Outcome": "gust_torch.precompute.outcome",
        "Request": "gust_torch.precompute.options",
        "precompute": "gust_torch.precompute.pipeline",
    },
)
