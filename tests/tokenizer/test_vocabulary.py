"""The unified vocabulary: ranges, numbering, unseen codes."""

import numpy as np
import pytest

from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.pipeline import Encoded
from gust_torch.tokenizer.vocabulary import Vocabulary

SCALES = ((1, 1), (2, 1), (4, 2))
SIZES = (4, 8, 16)
SPEC = FieldSpec(names=("vorticity",), grid=(16, 8))


@pytest.fixture
def codebooks() -> list[np.ndarray]:
    """Random codebooks (K_k, 3)."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(size, 3)).astype(np.float32) for size in SIZES]


@pytest.fixture
def counts() -> list[np.ndarray]:
    """Occurrences: one code at the first scale, a few at the others."""
    counts = [np.zeros(size, dtype=np.int64) for size in SIZES]
    counts[0][2] = 7
    counts[1][[1, 5, 6]] = [3, 9, 2]
    counts[2][::3] = 4
    return counts


@pytest.fixture
def vocabulary(codebooks: list[np.ndarray], counts: list[np.ndarray]) -> Vocabulary:
    """Return the vocabulary of those codes."""
    return Vocabulary.from_counts(SCALES, codebooks, counts)


def test_scales_have_contiguous_ranges_in_order(vocabulary: Vocabulary) -> None:
    assert vocabulary.scale_vocab_sizes.tolist() == [1, 3, 6]
    assert vocabulary.scale_offsets.tolist() == [0, 1, 4]
    assert vocabulary.effective_vocab_size == 10
    assert vocabulary.unified_to_scale.tolist() == [0] + [1] * 3 + [2] * 6
    assert vocabulary.unified_to_original.tolist() == [2, 1, 5, 6, 0, 3, 6, 9, 12, 15]
    assert vocabulary.boundaries == (0, 1, 3, 11)
    assert vocabulary.tokens_per_sample == 11


def test_codes_in_use_map_there_and_back(vocabulary: Vocabulary, codebooks: list[np.ndarray]) -> None:
    for token, (k, code) in enumerate(
        zip(vocabulary.unified_to_scale, vocabulary.unified_to_original, strict=True)
    ):
        assert vocabulary.old_to_unified[k][code] == token
        assert np.array_equal(vocabulary.codebook[token], codebooks[k][code])


def test_every_unseen_code_takes_its_nearest_neighbor_in_use(
    vocabulary: Vocabulary, codebooks: list[np.ndarray]
) -> None:
    for k, (book, in_use) in enumerate(zip(codebooks, vocabulary.codes_in_use, strict=True)):
        for code in range(len(book)):
            distances = np.linalg.norm(book[in_use] - book[code], axis=1)
            expected = vocabulary.scale_offsets[k] + np.argmin(distances)
            assert vocabulary.old_to_unified[k][code] == expected


def test_a_code_in_use_stands_for_itself_even_beside_an_equal_one(counts: list[np.ndarray]) -> None:
    equal = [np.zeros((size, 3), dtype=np.float32) for size in SIZES]
    vocabulary = Vocabulary.from_counts(SCALES, equal, counts)
    assert vocabulary.old_to_unified[1][[1, 5, 6]].tolist() == [1, 2, 3]


def test_remap_splits_and_renumbers(vocabulary: Vocabulary) -> None:
    codes = np.array([[2, 5, 6, 0, 3, 6, 9, 12, 15, 0, 3]], dtype=np.int16)
    parts = vocabulary.remap(codes)
    assert [part.tolist() for part in parts] == [[[0]], [[2, 3]], [[4, 5, 6, 7, 8, 9, 4, 5]]]
    assert all(part.dtype == np.int32 for part in parts)


@pytest.mark.parametrize(
    ("sizes", "expected"), [((1, 3, 1), 1), ((3, 1, 1), 0), ((1, 1, 2), 2), ((1, 1, 1), 3)]
)
def test_first_trainable_scale_is_the_first_with_a_choice(
    codebooks: list[np.ndarray], sizes: tuple[int, ...], expected: int
) -> None:
    in_use = tuple(np.arange(size, dtype=np.int32) for size in sizes)
    assert Vocabulary(SCALES, tuple(codebooks), in_use).first_trainable_scale == expected


def test_unseen_tokens_are_counted_and_described(vocabulary: Vocabulary, counts: list[np.ndarray]) -> None:
    def unseen(counts: list[np.ndarray]) -> list[str]:
        return Encoded(10, vocabulary, tuple(counts), SPEC).unseen

    assert unseen(counts) == []
    other = [count.copy() for count in counts]
    other[1][0] = 5
    assert unseen(other) == [
        "scale 2x1: 5 tokens (25.00%) had a code outside the vocabulary and took the nearest one in use"
    ]


def test_other_codebooks_are_refused(vocabulary: Vocabulary, codebooks: list[np.ndarray]) -> None:
    vocabulary.require_codebooks(codebooks, source="tokens.npz")
    other = [book.copy() for book in codebooks]
    other[2][0, 0] += np.float32(1e-6)
    with pytest.raises(ValueError, match=r"tokens\.npz was made with another codebook \(of scales 4x2\)"):
        vocabulary.require_codebooks(other, source="tokens.npz")
    with pytest.raises(ValueError, match="another codebook"):
        vocabulary.require_codebooks(codebooks[:2], source="tokens.npz")


def test_invalid_code_lists_are_refused(codebooks: list[np.ndarray], counts: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="scale 1x1 has no code in use"):
        Vocabulary.from_counts(SCALES, codebooks, [np.zeros(4, dtype=np.int64), *counts[1:]])
    with pytest.raises(ValueError, match=r"within 0\.\.3"):
        Vocabulary(SCALES[:1], (codebooks[0],), (np.array([4], dtype=np.int32),))
