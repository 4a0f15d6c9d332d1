"""Latents of an autoencoder, computed once: content-addressed caches, and windows of them for training."""
