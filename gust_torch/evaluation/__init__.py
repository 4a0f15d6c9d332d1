"""How well a latent operator predicts: errors of its rollouts over lead time; ``scripts/evaluate.py``."""
