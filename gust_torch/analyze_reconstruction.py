"""``python -m gust_torch.analyze_reconstruction``: score what the tokens of a trained VQ-VAE decode to."""

from gust_torch.analysis.command import main

if __name__ == "__main__":
    raise SystemExit(main())
