"""Fields to tokens: the tokenizer, its vocabulary and the token file."""

import importlib

__all__ = ["VQVAETokenizer", "Vocabulary", "load_tokenized_data", "save_tokens"]

# Imported on first use: `python -m gust_torch.tokenizer --help` waits for neither torch nor Lightning.
_HOMES = {
    "VQVAETokenizer": "tokenizer",
    "Vocabulary": "vocabulary",
    "load_tokenized_data": "npz",
    "save_tokens": "pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
