"""Fields to tokens: the tokenizer, its vocabulary and the token file."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.tokenizer.npz import Tokens, load_tokenized_data
    from gust_torch.tokenizer.pipeline import save_tokens
    from gust_torch.tokenizer.tokenizer import VQVAETokenizer
    from gust_torch.tokenizer.usage import bit_rate, scale_usage
    from gust_torch.tokenizer.vocabulary import Vocabulary

__all__ = [
    "Tokens",
    "VQVAETokenizer",
    "Vocabulary",
    "bit_rate",
    "load_tokenized_data",
    "save_tokens",
    "scale_usage",
]

# `python -m gust_torch.tokenizer --help` should wait for neither torch nor Lightning.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Tokens": "gust_torch.tokenizer.npz",
        "VQVAETokenizer": "gust_torch.tokenizer.tokenizer",
        "Vocabulary": "gust_torch.tokenizer.vocabulary",
        "bit_rate": "gust_torch.tokenizer.usage",
        "load_tokenized_data": "gust_torch.tokenizer.npz",
        "save_tokens": "gust_torch.tokenizer.pipeline",
        "scale_usage": "gust_torch.tokenizer.usage",
    },
)
