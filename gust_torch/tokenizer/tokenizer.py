"""Fields to discrete tokens and back with a trained multi-scale VQ-VAE."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.models.token_model import TokenModel
from gust_torch.tokenizer.npz import read_vocabulary
from gust_torch.tokenizer.vocabulary import Vocabulary, describe_unseen
from solvers.common.files import file_sha256

__all__ = ["VQVAETokenizer", "count_codes"]

logger = logging.getLogger(__name__)


class VQVAETokenizer(LightningModule):
    """Encode fields as unified tokens, and decode them to the model's own reconstruction.

    `decode(encode(x))` equals `reconstruct(x)` bit for bit, at the same batch shape and device, wherever the
    vocabulary holds the codes: always for the data it was fitted on. Fields are raw physical values.

    A tokenizer stays in evaluation mode, also inside another module that is being trained, and takes no
    gradient. Its vocabulary comes from `fit` or `use_vocabulary`; under `Trainer.predict` it yields original
    codes, for which no vocabulary is needed.

    Attributes:
        model: the VQ-VAE.
        predict_batch_size: rows that `predict_step` fills up a short batch to. Kernels may round differently
            for another batch shape, so this makes codes independent of where the batches were cut.
        checkpoint: where the model came from, if from a file.
    """

    def __init__(
        self,
        model: TokenModel,
        vocabulary: Vocabulary | None = None,
        *,
        predict_batch_size: int | None = None,
    ) -> None:
        """Wrap a trained model.

        Args:
            model: the VQ-VAE, taken over as it is.
            vocabulary: the numbering, if already known.
            predict_batch_size: see the class.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.predict_batch_size = predict_batch_size
        self.checkpoint: str | None = None
        self._tables: VocabularyTables | None = None
        if vocabulary is not None:
            self.use_vocabulary(vocabulary)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> VQVAETokenizer:
        """Load the model of a training checkpoint; fit it next, or give it a vocabulary.

        Raises:
            ValueError: if the file is no checkpoint of this package, or one without trained codebooks.
        """
        model = load_model(path)
        if not model.is_ready:
            raise ValueError(
                f"{path} is of the first training steps, before its codebooks are set; train for longer or "
                "with a smaller --model.autoencoder_steps"
            )
        tokenizer = cls(model)
        tokenizer.checkpoint = os.fspath(path)
        return tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """The numbering in force.

        Raises:
            ValueError: if there is none yet.
        """
        return self._require_tables().vocabulary

    @property
    def codebooks(self) -> tuple[NDArray[np.float32], ...]:
        """(K_k, d) vectors of each scale, as the decoder uses them."""
        return tuple(book.detach().float().cpu().numpy() for book in self.model.codebooks)

    @property
    def code_dtype(self) -> np.dtype[np.signedinteger[Any]]:
        """Of original codes: int16 where it holds them, else int32."""
        fits = max(self.model.vocab_sizes) <= np.iinfo(np.int16).max + 1
        return np.dtype(np.int16 if fits else np.int32)

    @property
    def tokens_per_sample(self) -> int:
        """L = sum over scales of h_k w_k."""
        return sum(self._areas)

    def use_vocabulary(self, vocabulary: Vocabulary | str | os.PathLike[str]) -> VQVAETokenizer:
        """Adopt a vocabulary, such as the training data's for test data.

        Args:
            vocabulary: a vocabulary or the token file that holds it.

        Raises:
            ValueError: if it was built on other codebooks or other weights than the model's.
        """
        source = "the vocabulary"
        if not isinstance(vocabulary, Vocabulary):
            source = str(vocabulary)
            vocabulary = read_vocabulary(os.fspath(vocabulary))
        vocabulary.require_codebooks(self.codebooks, source=source)
        self._require_weights(vocabulary, source)
        self._tables = VocabularyTables(vocabulary).to(self.model.mean.device)
        return self

    def _require_weights(self, vocabulary: Vocabulary, source: str) -> None:
        """Refuse tokens of a model with equal codebooks that encodes or decodes otherwise.

        Raises:
            ValueError: as said.
        """
        made_by = vocabulary.weights_sha256
        if made_by is not None:
            is_same = made_by == self.weights_sha256
        elif vocabulary.checkpoint_sha256 is None or self.checkpoint is None:
            return
        else:  # a file of an older version
            made_by = vocabulary.checkpoint_sha256
            is_same = made_by == file_sha256(Path(self.checkpoint))
        if not is_same:
            raise ValueError(
                f"{source} was made by a model with other weights ({made_by[:12]}), its tokens would decode "
                "to other fields here; use the checkpoint that made it, or fit a new vocabulary"
            )

    @property
    def weights_sha256(self) -> str:
        """Digest of the model as it is now, weights and buffers."""
        return model_digest(self.model)

    def fit(self, batches: Iterable[Tensor]) -> VQVAETokenizer:
        """Build the vocabulary of the codes that occur in the data.

        Args:
            batches: (b, c, h, w) tensors, for instance a `DataLoader` over an `HDF5Dataset`.

        Raises:
            ValueError: if there are no batches.
        """
        areas, sizes = self._areas, self.model.vocab_sizes
        counts = [np.zeros(size, dtype=np.int64) for size in sizes]
        for x in batches:
            codes = self.tokenize(x).cpu().numpy()
            counts = [a + b for a, b in zip(counts, count_codes(codes, areas, sizes), strict=True)]
        return self.use_vocabulary(Vocabulary.from_counts(self.model.scales, self.codebooks, counts))

    @torch.no_grad()
    def tokenize(self, x: Tensor | ArrayLike) -> Tensor:
        """Turn fields (b, c, h, w) into original codes (b, L) int64, scales concatenated coarse to fine."""
        return torch.cat([index.flatten(1) for index in self.model.tokenize(self._place(x))], dim=1)

    @torch.no_grad()
    def encode(self, x: Tensor | ArrayLike) -> Tensor:
        """Turn fields (b, c, h, w) into unified tokens (b, L) int64.

        A code that the vocabulary lacks becomes the nearest code in use at its scale; `unseen_report` says
        how many did.

        Raises:
            ValueError: if there is no vocabulary, or x has other channels or another grid than the model.
        """
        return self._require_tables().to_tokens(self.tokenize(x))

    @torch.no_grad()
    def decode(self, indices: Tensor | ArrayLike) -> Tensor:
        """Turn unified tokens (b, L), a tensor or an array, into fields (b, c, h, w).

        Raises:
            ValueError: if there is no vocabulary, or a token is not one of its position's scale.
        """
        if not isinstance(indices, Tensor):
            array = np.array(indices)
            indices = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)
        codes = self._require_tables().to_codes(indices.to(self.model.mean.device))
        parts = codes.split(self._areas, dim=1)
        shaped = [part.unflatten(1, scale) for part, scale in zip(parts, self.model.scales, strict=True)]
        return self.model.decode(shaped)

    @torch.no_grad()
    def reconstruct(self, x: Tensor | ArrayLike) -> Tensor:
        """Pass fields (b, c, h, w) through the model without tokens."""
        return self.model.reconstruct(self._place(x))

    def unseen_report(self) -> list[str]:
        """Say, scale by scale, how many tokens of all `encode` calls so far took a neighbor's code."""
        tables = self._require_tables()
        return describe_unseen(tables.vocabulary, tables.unseen.cpu().numpy(), tables.num_encoded)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Turn fields (b, c, h, w) into original codes (b, L), as int16 where it holds them, else int32."""
        rows = len(batch)
        if self.predict_batch_size is not None and rows < self.predict_batch_size:
            batch = torch.cat([batch, batch[-1:].expand(self.predict_batch_size - rows, -1, -1, -1)])
        dtype = torch.int16 if self.code_dtype == np.int16 else torch.int32
        return self.tokenize(batch)[:rows].to(dtype)

    def train(self, mode: bool = True) -> VQVAETokenizer:
        """Stay in evaluation mode: training mode would move the codebooks."""
        super().train(False)
        return self

    def _place(self, x: Tensor | ArrayLike) -> Tensor:
        if not isinstance(x, Tensor):
            x = torch.from_numpy(np.array(x, dtype=np.float32))
        # Not self.device, which goes stale when a plain module that holds the tokenizer is moved.
        return x.to(self.model.mean.device, torch.float32)

    @property
    def _areas(self) -> list[int]:
        return [h * w for h, w in self.model.scales]

    def _require_tables(self) -> VocabularyTables:
        if self._tables is None:
            raise ValueError(
                "the tokenizer has no vocabulary; call fit(batches) or use_vocabulary('tokens.npz') first"
            )
        return self._tables


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
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise ValueError(f"expected whole numbers as tokens, got {tokens.dtype}")
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


def count_codes(
    codes: NDArray[np.integer], areas: Sequence[int], sizes: Sequence[int]
) -> list[NDArray[np.int64]]:
    """Count the occurrences of each original code.

    Args:
        codes: (n, L) original codes.
        areas: S numbers of tokens, h_k w_k.
        sizes: S codebook sizes K_k.

    Returns:
        S arrays (K_k,).
    """
    ends = np.cumsum(areas)
    parts = (codes[:, end - area : end] for end, area in zip(ends, areas, strict=True))
    return [np.bincount(part.ravel(), minlength=size) for part, size in zip(parts, sizes, strict=True)]
