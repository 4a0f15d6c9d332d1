"""Tokenizers that come with the package, trained on the flows of `gust-torch study-data`."""

from pathlib import Path

import numpy as np
import torch

from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.vocabulary import Vocabulary

FOLDER = Path(__file__).parents[1] / "pretrained"


def load_pretrained(name: str, *, device: str | torch.device = "cpu") -> VQVAETokenizer:
    """Load a tokenizer by name; its card, `gust_torch/pretrained/NAME.md`, says what it is good for.

    Every code of its codebooks is a token of the vocabulary.

    Args:
        name: Such as "turbulence-128-0.09": flow, grid, bits per pixel.
        device: Where to put the model.

    Raises:
        ValueError: If there is none of that name.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.ckpt"))
    if name not in names:
        raise ValueError(f"no pretrained tokenizer {name!r}; there are {', '.join(names)}")
    tokenizer = VQVAETokenizer.from_checkpoint(FOLDER / f"{name}.ckpt")
    books = tokenizer.codebooks
    every = [np.arange(len(book), dtype=np.int32) for book in books]
    tokenizer.use_vocabulary(Vocabulary(tokenizer.model.scales, books, tuple(every)))
    return tokenizer.to(device)
