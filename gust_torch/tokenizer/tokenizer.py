"""Fields to discrete tokens and back with a trained multi-scale VQ-VAE."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.models.token_model import TokenModel
from gust_torch.tokenizer.npz import read_vocabulary
from gust_torch.tokenizer.vocabulary import Vocabulary
from solvers.common.files import file_sha256


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
        areas: tokens of each scale, h_k w_k.
    """

    # Tables of the vocabulary. Those of all scales lie behind one another, so that one gather serves a batch:
    # the code at position p of the flat sequence has row `_first_row[p] + code`.
    _first_row: Tensor
    _row_to_token: Tensor
    _scale_of_position: Tensor
    _token_to_scale: Tensor
    _token_to_code: Tensor
    _unseen: Tensor  # (S,) tokens so far whose code the vocabulary does not hold

    def __init__(
        self,
        model: TokenModel,
        vocabulary: Vocabulary | None = None,
        *,
        predict_batch_size: int | None = None,
    ) -> None:
        """Wrap a trained model, taken over as it is, and a vocabulary if it is already known."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.predict_batch_size = predict_batch_size
        self.checkpoint: str | None = None
        self.areas = [h * w for h, w in model.scales]
        self._vocabulary: Vocabulary | None = None
        if vocabulary is not None:
            self.use_vocabulary(vocabulary)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, search: int = 0) -> VQVAETokenizer:
        """Load the model of a training checkpoint; fit it next, or give it a vocabulary.

        Args:
            path: the checkpoint.
            search: codes to try for each token, see `TokenModel.search`; 0 takes the nearest.

        Raises:
            ValueError: if the file is no checkpoint of this package, or one without trained codebooks.
        """
        model = load_model(path)
        if not model.is_ready:
            text = f"{path} is of the first training steps, before its codebooks are set"
            raise ValueError(f"{text}; train longer, --ckpt_path last goes on")
        model.candidates = search
        tokenizer = cls(model)
        tokenizer.checkpoint = os.fspath(path)
        return tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """The numbering in force; a ValueError where there is none yet."""
        if self._vocabulary is None:
            raise ValueError("no vocabulary yet; call fit(batches) or use_vocabulary('tokens.npz') first")
        return self._vocabulary

    @property
    def codebooks(self) -> tuple[NDArray[np.float32], ...]:
        """(K_k, d) vectors of each scale, as the decoder uses them."""
        return tuple(book.detach().float().cpu().numpy() for book in self.model.codebooks)

    @property
    def code_dtype(self) -> np.dtype[np.signedinteger[Any]]:
        """Of original codes: int16 where it holds them, else int32."""
        fits = max(self.model.vocab_sizes) <= np.iinfo(np.int16).max + 1
        return np.dtype(np.int16 if fits else np.int32)

    def use_vocabulary(self, vocabulary: Vocabulary | str | os.PathLike[str]) -> VQVAETokenizer:
        """Adopt a vocabulary or that of a token file, such as the training data's for test data.

        Raises:
            ValueError: if it was built on other codebooks or other weights than the model's.
        """
        source = "the vocabulary"
        if not isinstance(vocabulary, Vocabulary):
            source = str(vocabulary)
            vocabulary = read_vocabulary(os.fspath(vocabulary))
        vocabulary.require_codebooks(self.codebooks, source=source)
        self._require_weights(vocabulary, source)
        sizes = [len(book) for book in vocabulary.codebooks]
        tables: dict[str, NDArray[Any]] = {
            "_first_row": np.repeat(np.cumsum(sizes) - sizes, self.areas),
            "_row_to_token": np.concatenate(vocabulary.old_to_unified),
            "_scale_of_position": np.repeat(np.arange(len(sizes)), self.areas),
            "_token_to_scale": vocabulary.unified_to_scale,
            "_token_to_code": vocabulary.unified_to_original,
            "_unseen": np.zeros(len(sizes)),
        }
        for name, array in tables.items():
            # The token file is the vocabulary's home, not a checkpoint.
            table = torch.from_numpy(array.astype(np.int64)).to(self.model.mean.device)
            self.register_buffer(name, table, persistent=False)
        self._vocabulary, self._num_encoded = vocabulary, 0
        return self

    def _require_weights(self, vocabulary: Vocabulary, source: str) -> None:
        """Refuse tokens of a model with equal codebooks that encodes or decodes otherwise."""
        if vocabulary.weights_sha256 is not None:
            made_by, own = vocabulary.weights_sha256, model_digest(self.model)
        elif vocabulary.checkpoint_sha256 is not None and self.checkpoint is not None:  # of an older version
            made_by, own = vocabulary.checkpoint_sha256, file_sha256(Path(self.checkpoint))
        else:
            return
        if made_by != own:
            text = f"{source} was made by a model with other weights ({made_by:.12})"
            raise ValueError(f"{text}; use the checkpoint that made it, or fit a new vocabulary")

    def fit(self, batches: Iterable[Tensor]) -> VQVAETokenizer:
        """Build the vocabulary of the codes that occur in batches (b, c, h, w), such as a `DataLoader` gives.

        Raises:
            ValueError: if there are no batches.
        """
        counts = [np.zeros(size, dtype=np.int64) for size in self.model.vocab_sizes]
        for x in batches:
            counts = [a + b for a, b in zip(counts, self.count(self.tokenize(x).cpu()), strict=True)]
        return self.use_vocabulary(Vocabulary.from_counts(self.model.scales, self.codebooks, counts))

    def count(self, codes: Tensor) -> list[NDArray[np.int64]]:
        """Count the occurrences (K_k,) of each scale's codes in original codes (n, L)."""
        pairs = zip(codes.split(self.areas, dim=1), self.model.vocab_sizes, strict=True)
        return [np.bincount(part.numpy().ravel(), minlength=size) for part, size in pairs]

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
        _ = self.vocabulary
        codes = self.tokenize(x)
        tokens = self._row_to_token[codes + self._first_row]
        unseen = (self._token_to_code[tokens] != codes).sum(dim=0)
        self._unseen.index_add_(0, self._scale_of_position, unseen)
        self._num_encoded += len(codes)
        return tokens

    @torch.no_grad()
    def decode(self, indices: Tensor | ArrayLike) -> Tensor:
        """Turn unified tokens (b, L), a tensor or an array, into fields (b, c, h, w).

        Raises:
            ValueError: if there is no vocabulary, or a token is not one of its position's scale.
        """
        vocabulary = self.vocabulary
        if not isinstance(indices, Tensor):
            array = np.array(indices)
            indices = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)
        if indices.ndim != 2 or indices.shape[1] != vocabulary.tokens_per_sample:
            expected = f"(b, {vocabulary.tokens_per_sample})"
            raise ValueError(f"expected indices of shape {expected}, got {tuple(indices.shape)}")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise ValueError(f"expected whole numbers as tokens, got {indices.dtype}")
        tokens = indices.to(self.model.mean.device).long()
        outside = (tokens < 0) | (tokens >= vocabulary.effective_vocab_size)
        safe = tokens.masked_fill(outside, 0)
        wrong = outside | (self._token_to_scale[safe] != self._scale_of_position)
        if wrong.any():
            sample, position = wrong.nonzero()[0].tolist()
            k = int(self._scale_of_position[position])
            first, (h, w) = int(vocabulary.scale_offsets[k]), vocabulary.scales[k]
            last = first + int(vocabulary.scale_vocab_sizes[k]) - 1
            token = f"token {int(tokens[sample, position])} at sample {sample}, position {position}"
            raise ValueError(f"{token} is outside {first}..{last}, the tokens of its scale {h}x{w}")
        parts = self._token_to_code[safe].split(self.areas, dim=1)
        shaped = [part.unflatten(1, scale) for part, scale in zip(parts, self.model.scales, strict=True)]
        return self.model.decode(shaped)

    @torch.no_grad()
    def reconstruct(self, x: Tensor | ArrayLike) -> Tensor:
        """Pass fields (b, c, h, w) through the model without tokens."""
        return self.model.reconstruct(self._place(x))

    def unseen_report(self) -> list[str]:
        """Say, scale by scale, how many tokens of all `encode` calls so far took a neighbor's code."""
        return self.vocabulary.describe_unseen(self._unseen.tolist(), self._num_encoded)

    def predict_step(self, batch: Tensor, batch_idx: int = 0) -> Tensor:
        """Turn fields (b, c, h, w) into original codes (b, L) of `code_dtype`."""
        rows = len(batch)
        if self.predict_batch_size is not None and rows < self.predict_batch_size:
            batch = torch.cat([batch, batch[-1:].expand(self.predict_batch_size - rows, -1, -1, -1)])
        return self.tokenize(batch)[:rows].to(getattr(torch, self.code_dtype.name))

    def train(self, mode: bool = True) -> VQVAETokenizer:
        """Stay in evaluation mode: training mode would move the codebooks."""
        super().train(False)
        return self

    def _place(self, x: Tensor | ArrayLike) -> Tensor:
        if not isinstance(x, Tensor):
            x = torch.from_numpy(np.array(x, dtype=np.float32))
        # Not self.device, which goes stale when a plain module that holds the tokenizer is moved.
        return x.to(self.model.mean.device, torch.float32)
