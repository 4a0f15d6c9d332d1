"""The tokenizers of the package: loaded by name, exact, small, each with a card."""

import pytest
import torch

import gust_torch
from gust_torch.tokenizer.pretrained import FOLDER

NAMES = sorted(path.stem for path in FOLDER.glob("*.ckpt"))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_decode_to_the_reconstruction(name: str) -> None:
    tokenizer = gust_torch.load_pretrained(name)
    spec = tokenizer.model.spec
    x = torch.randn(2, spec.num_channels, *spec.grid, generator=torch.Generator().manual_seed(0))
    tokens = tokenizer.encode(x)
    assert tokens.shape == (2, tokenizer.vocabulary.tokens_per_sample)
    assert torch.equal(tokenizer.decode(tokens), tokenizer.reconstruct(x))
    assert not tokenizer.unseen_report()


def test_each_has_a_card_and_all_are_small() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(NAMES)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8 * 2**20


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=NAMES[0]):
        gust_torch.load_pretrained("turbulence")
