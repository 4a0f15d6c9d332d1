"""The vocabulary as tensors: codes to unified tokens and back, on the device, without a synchronization."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gust_torch.tokenizer.vocabulary import Vocabulary

__all__ = ["VocabularyTables"]


class VocabularyTables(nn.Module):
    """Lookup tables of one vocabulary.

    The S tables of a vocabulary are stored as one, so that a batch is remapped by a single gather: the code
    at position p of the flat sequence has row `first_row[p] + code`.

    Attributes:
        num_encoded: samples remapped so far.
        unseen: (S,) tokens so far whose code the vocabulary does not hold.
    """

    first_row: Tensor
    scale_of_position: Tensor
    row_to_token: Tensor
    row_in_use: Tensor
    token_to_scale: Tensor
    token_to_code: Tensor
    unseen: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Build the tables.

        Args:
            vocabulary: the numbering to serve.
        """
        super().__init__()
        self.vocabulary = vocabulary
        self.num_encoded = 0
        areas = [h * w for h, w in vocabulary.scales]
        sizes = [len(book) for book in vocabulary.codebooks]
        starts = np.cumsum([0, *sizes[:-1]])
        in_use = np.zeros(sum(sizes), dtype=bool)
        for start, codes in zip(starts, vocabulary.codes_in_use, strict=True):
            in_use[start + codes] = True
        arrays = {
            "first_row": np.repeat(starts, areas),
            "scale_of_position": np.repeat(np.arange(len(areas)), areas),
            "row_to_token": np.concatenate(vocabulary.old_to_unified).astype(np.int64),
            "row_in_use": in_use,
            "token_to_scale": vocabulary.unified_to_scale.astype(np.int64),
            "token_to_code": vocabulary.unified_to_original.astype(np.int64),
            "unseen": np.zeros(len(areas), dtype=np.int64),
        }
        for name, array in arrays.items():
            # The token file is the vocabulary's home, not a checkpoint.
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def to_tokens(self, codes: Tensor) -> Tensor:
        """Map original codes (b, L) to unified tokens (b, L) int64; counts the unseen ones."""
        rows = codes + self.first_row
        unseen = (~self.row_in_use[rows]).sum(dim=0)
        self.unseen.index_add_(0, self.scale_of_position, unseen)
        self.num_encoded += len(codes)
        return self.row_to_token[rows]

    def to_codes(self, tokens: Tensor) -> Tensor:
        """Map unified tokens (b, L) to original codes (b, L) int64.

        Raises:
            ValueError: if a token is outside the range of the scale that its position belongs to.
        """
        length = self.vocabulary.tokens_per_sample
        if tokens.ndim != 2 or tokens.shape[1] != length:
            raise ValueError(f"expected indices of shape (b, {length}), got {tuple(tokens.shape)}")
        outside = (tokens < 0) | (tokens >= len(self.token_to_code))
        safe = tokens.masked_fill(outside, 0).long()
        wrong = outside | (self.token_to_scale[safe] != self.scale_of_position)
        if bool(wrong.any()):
            self._raise_wrong_token(tokens, wrong)
        return self.token_to_code[safe]

    def _raise_wrong_token(self, tokens: Tensor, wrong: Tensor) -> None:
        sample, position = wrong.nonzero()[0].tolist()
        k = int(self.scale_of_position[position])
        h, w = self.vocabulary.scales[k]
        first = int(self.vocabulary.scale_offsets[k])
        last = first + int(self.vocabulary.scale_vocab_sizes[k]) - 1
        raise ValueError(
            f"token {int(tokens[sample, position])} at sample {sample}, position {position} is outside "
            f"{first}..{last}, the tokens of its scale {h}x{w}; draw each scale from its own range"
        )
