"""Token files in gust2's layout: ours written and read back, and one as gust2 writes it."""

import json
from pathlib import Path

import numpy as np
import pytest

from gust_torch.tokenizer.__main__ import main
from gust_torch.tokenizer.npz import TokenSource, load_tokenized_data, read_vocabulary, write_tokens
from gust_torch.tokenizer.vocabulary import Vocabulary

SIZES = (4, 8, 16)


def write(path: Path, scales: tuple[tuple[int, int], ...]) -> None:
    """Write five samples of random codes, half of each codebook in use."""
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, k // 2, size=(5, h * w)) for k, (h, w) in zip(SIZES, scales, strict=True)]
    books = [rng.normal(size=(k, 3)).astype(np.float32) for k in SIZES]
    counts = [np.bincount(part.ravel(), minlength=k) for part, k in zip(parts, SIZES, strict=True)]
    source = TokenSource(
        ("vorticity",), np.zeros(1), np.ones(1), np.array([0, 0, 0, 1, 1]), np.arange(5.0), {}
    )
    vocabulary = Vocabulary.from_counts(scales, books, counts)
    write_tokens(path, np.concatenate(parts, axis=1), vocabulary, source, overwrite=False)


def export(path: Path, *flags: str) -> int:
    """Export to `gust2.npz` beside it."""
    output = str(path.with_name("gust2.npz"))
    return main(["export", "--layout", "gust2", "--tokens", str(path), "--output", output, *flags])


def test_the_layout_is_that_of_gust2(tmp_path: Path) -> None:
    write(tmp_path / "tokens.npz", ((1, 1), (2, 2), (4, 4)))
    assert export(tmp_path / "tokens.npz") == 0
    with np.load(tmp_path / "gust2.npz", allow_pickle=False) as archive:
        found = dict(archive)
    assert found["scales"].tolist() == [1, 2, 4]
    assert (
        int(found["vocab_size"]) == len(found["original_codebook"]) == len(found["old_to_new"]) == sum(SIZES)
    )
    v = int(found["effective_vocab_size"])
    assert found["scale_masks"].shape == (3, v)
    assert found["scale_masks"].dtype == bool
    assert np.array_equal(found["original_codebook"][found["new_to_old"]], found["codebook"])
    assert np.array_equal(found["old_to_new"][found["new_to_old"]], np.arange(v))
    assert np.array_equal(
        np.flatnonzero(found["old_to_new"] < 0), np.setdiff1d(np.arange(28), found["new_to_old"])
    )
    parts = [found[f"indices_scale_{s}"] for s in (1, 2, 4)]
    assert [part.shape for part in parts] == [(5, 1), (5, 4), (5, 16)]
    assert np.array_equal(np.concatenate(parts, axis=1), found["indices_flat"])
    assert all(found["scale_masks"][k][part].all() for k, part in enumerate(parts))


def test_an_exported_file_is_read_as_the_original(tmp_path: Path) -> None:
    write(tmp_path / "tokens.npz", ((1, 1), (2, 2), (4, 4)))
    export(tmp_path / "tokens.npz")
    first, again = (load_tokenized_data(tmp_path / name) for name in ("tokens.npz", "gust2.npz"))
    assert set(first) == set(again)
    for key in first:
        np.testing.assert_equal(first[key], again[key])
    books = read_vocabulary(tmp_path / "tokens.npz").codebooks
    read_vocabulary(tmp_path / "gust2.npz").require_codebooks(books, source="it")


def test_a_file_of_gust2_gets_ranges_of_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    book, used = rng.normal(size=(20, 3)).astype(np.float32), np.array([1, 3, 4, 9, 12], dtype=np.int32)
    masks = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    sizes = masks.sum(axis=1)
    parts = [rng.integers(0, n, size=(40, s * s)) for n, s in zip(sizes, (1, 2, 4), strict=True)]
    flat = np.concatenate(parts, axis=1)
    old_to_new = np.full(20, -1, dtype=np.int32)
    old_to_new[used] = np.arange(5)
    members = {
        "codebook": book[used],
        "original_codebook": book,
        "effective_vocab_size": np.array(5),
        "vocab_size": np.array(20),
        "codebook_dim": np.array(3),
        "indices_flat": flat,
        "config_json": np.array(json.dumps({"d_model": 8})),
        "scales": np.array([1, 2, 4]),
        "old_to_new": old_to_new,
        "new_to_old": used,
        "scale_masks": masks,
    }
    np.savez_compressed(tmp_path / "theirs.npz", **members)
    tokens = load_tokenized_data(tmp_path / "theirs.npz")
    assert np.array_equal(tokens["vectors_flat"], book[used][flat])
    assert tokens["scale_vocab_sizes"].tolist() == sizes.tolist()
    assert tokens["scales"] == ((1, 1), (2, 2), (4, 4))
    assert tokens["config"]["architecture"] == {"d_model": 8}
    assert "time" not in tokens
    for key, value, word in (
        ("indices_flat", flat - 1, "of 5 tokens"),
        ("scale_masks", masks[:2], "scale_masks"),
        ("scales", np.array([1, 2, 3]), "indices_flat"),
        ("scales", np.array([1.0, 2.0, 4.0]), "whole numbers"),
    ):
        np.savez(tmp_path / "bad.npz", **{**members, key: value})
        with pytest.raises(ValueError, match=word):
            load_tokenized_data(tmp_path / "bad.npz")


def test_oblong_scales_and_existing_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tokens.npz", ((1, 1), (2, 1), (4, 2)))
    assert export(tmp_path / "tokens.npz") == 1
    assert "2x1, 4x2" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npz"]
    write(tmp_path / "square.npz", ((1, 1), (2, 2), (4, 4)))
    assert export(tmp_path / "square.npz") == 0
    capsys.readouterr()
    assert export(tmp_path / "square.npz") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert export(tmp_path / "square.npz", "--overwrite") == 0
