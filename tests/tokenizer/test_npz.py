"""The token file: keys, dtypes, atomic writing, lazy vectors, damaged files."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gust_torch.tokenizer import npz
from gust_torch.tokenizer.npz import TokenSource, load_tokenized_data, read_vocabulary, write_tokens
from gust_torch.tokenizer.vocabulary import Vocabulary

SCALES = ((1, 1), (2, 1), (4, 2))
SIZES = (4, 8, 16)
NUM_SAMPLES = 5


@pytest.fixture
def codes() -> np.ndarray:
    """Original codes (5, 11); only some of each codebook occur."""
    rng = np.random.default_rng(1)
    parts = [
        rng.integers(0, size // 2, size=(NUM_SAMPLES, h * w))
        for size, (h, w) in zip(SIZES, SCALES, strict=True)
    ]
    return np.concatenate(parts, axis=1).astype(np.int16)


@pytest.fixture
def vocabulary(codes: np.ndarray) -> Vocabulary:
    """Return the vocabulary of these codes."""
    rng = np.random.default_rng(2)
    books = [rng.normal(size=(size, 3)).astype(np.float32) for size in SIZES]
    parts = np.split(codes, [1, 3], axis=1)
    counts = [np.bincount(part.ravel(), minlength=size) for part, size in zip(parts, SIZES, strict=True)]
    return Vocabulary.from_counts(SCALES, books, counts)


@pytest.fixture
def source() -> TokenSource:
    """Two channels, two trajectories."""
    return TokenSource(
        field_names=("buoyancy", "vorticity"),
        mean=np.array([0.5, 0.0]),
        std=np.array([1.0, 2.0]),
        trajectory=np.array([0, 0, 0, 1, 1]),
        time=np.array([0.0, 0.1, 0.2, 0.0, 0.1]),
        config={"architecture": {"base_channels": 8}},
    )


@pytest.fixture
def path(tmp_path: Path, codes: np.ndarray, vocabulary: Vocabulary, source: TokenSource) -> Path:
    """Return a written token file."""
    path = tmp_path / "tokens.npz"
    write_tokens(path, codes, vocabulary, source, overwrite=False)
    return path


def test_every_documented_key_has_its_shape_and_dtype(path: Path, vocabulary: Vocabulary) -> None:
    v = vocabulary.effective_vocab_size
    expected = {
        "indices_flat": ((5, 11), np.int32),
        "indices_scale_1x1": ((5, 1, 1), np.int32),
        "indices_scale_2x1": ((5, 2, 1), np.int32),
        "indices_scale_4x2": ((5, 4, 2), np.int32),
        "codebook": ((v, 3), np.float32),
        "effective_vocab_size": ((), np.int64),
        "vocab_size": ((), np.int64),
        "codebook_dim": ((), np.int64),
        "scales": ((3, 2), np.int64),
        "scale_offsets": ((3,), np.int64),
        "scale_vocab_sizes": ((3,), np.int64),
        "unified_to_scale": ((v,), np.int32),
        "unified_to_original": ((v,), np.int32),
        "first_trainable_scale": ((), np.int64),
        **{f"scale_old_to_unified_{k}": ((size,), np.int32) for k, size in enumerate(SIZES)},
        **{f"original_codebook_scale_{k}": ((size, 3), np.float32) for k, size in enumerate(SIZES)},
        "trajectory": ((5,), np.int32),
        "time": ((5,), np.float64),
        "mean": ((2,), np.float32),
        "std": ((2,), np.float32),
    }
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {*expected, "config_json", "field_names"}
        for key, (shape, dtype) in expected.items():
            assert (stored[key].shape, stored[key].dtype) == (shape, dtype), key
        assert stored["field_names"].tolist() == ["buoyancy", "vorticity"]
        assert json.loads(str(stored["config_json"])) == {
            "format_version": 1,
            "architecture": {"base_channels": 8},
        }


def test_the_documentation_lists_just_these_keys(path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "tokens.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    with np.load(path, allow_pickle=False) as stored:
        general = {re.sub(r"_\d+$", "_{k}", re.sub(r"\d+x\d+$", "{h}x{w}", key)) for key in stored.files}
    assert documented == general


def test_tokens_stand_for_the_original_codes(path: Path, codes: np.ndarray) -> None:
    data = load_tokenized_data(path)
    assert np.array_equal(data["unified_to_original"][data["indices_flat"]], codes)
    per_scale = [data[f"indices_scale_{h}x{w}"].reshape(5, -1) for h, w in SCALES]
    assert np.array_equal(np.concatenate(per_scale, axis=1), data["indices_flat"])
    with np.load(path, allow_pickle=False) as stored:
        assert np.array_equal(stored["indices_scale_4x2"], data["indices_scale_4x2"])


def test_blocks_make_the_same_arrays(
    path: Path,
    codes: np.ndarray,
    vocabulary: Vocabulary,
    source: TokenSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(npz, "BLOCK_SAMPLES", 2)
    blocked = path.with_name("blocked.npz")
    write_tokens(blocked, codes, vocabulary, source, overwrite=False)
    with np.load(path, allow_pickle=False) as whole, np.load(blocked, allow_pickle=False) as parts:
        assert all(np.array_equal(whole[key], parts[key]) for key in whole.files)


def test_loaded_mapping_has_python_values_and_lazy_vectors(path: Path) -> None:
    data = load_tokenized_data(str(path))
    assert data["scales"] == SCALES
    assert data["vocab_size"] == 16
    assert data["codebook_dim"] == 3
    assert isinstance(data["effective_vocab_size"], int)
    assert data["field_names"] == ("buoyancy", "vorticity")
    assert data["config"]["architecture"] == {"base_channels": 8}
    assert len(data["original_codebooks"]) == len(data["scale_old_to_unified"]) == 3
    assert "vectors_flat" in data
    assert set(data) >= {"vectors_flat", "indices_flat", "first_trainable_scale"}
    assert len(data) == len(list(data))
    assert data["vectors_flat"].shape == (5, 11, 3)
    assert np.array_equal(data["vectors_flat"][2, 7], data["codebook"][data["indices_flat"][2, 7]])
    assert data["vectors_flat"] is not data["vectors_flat"], "computed on access, not kept"


def test_vocabulary_survives_the_file(path: Path, vocabulary: Vocabulary) -> None:
    loaded = read_vocabulary(path)
    loaded.require_codebooks(vocabulary.codebooks, source="file")
    for a, b in zip(loaded.old_to_unified, vocabulary.old_to_unified, strict=True):
        assert np.array_equal(a, b)


def test_existing_file_is_kept_unless_overwriting(
    path: Path, codes: np.ndarray, vocabulary: Vocabulary, source: TokenSource
) -> None:
    shorter = dataclasses.replace(source, trajectory=source.trajectory[:2], time=source.time[:2])
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        write_tokens(path, codes[:2], vocabulary, shorter, overwrite=False)
    assert path.read_bytes() == before
    write_tokens(path, codes[:2], vocabulary, shorter, overwrite=True)
    assert len(load_tokenized_data(path)["indices_flat"]) == 2


def test_failed_write_leaves_the_old_file_and_nothing_else(
    path: Path, codes: np.ndarray, vocabulary: Vocabulary, source: TokenSource
) -> None:
    before = path.read_bytes()
    with pytest.raises(IndexError):
        write_tokens(path, codes + np.int16(100), vocabulary, source, overwrite=True)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["tokens.npz"]


def test_foreign_and_damaged_files_are_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.npz"):
        load_tokenized_data(path.with_name("nothing.npz"))
    cut = path.with_name("cut.npz")
    cut.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.npz is not a token file, or damaged"):
        load_tokenized_data(cut)
    foreign = path.with_name("foreign.npz")
    np.savez(foreign, omega=np.zeros(3))
    with pytest.raises(ValueError, match=r"foreign\.npz is not a token file, .*scales"):
        read_vocabulary(foreign)


def test_a_grid_that_stands_twice_has_two_members(tmp_path: Path, source: TokenSource) -> None:
    scales, books = ((1, 1), (2, 2), (2, 2)), [np.eye(4, dtype=np.float32)] * 3
    codes = np.random.default_rng(3).integers(0, 4, size=(NUM_SAMPLES, 9)).astype(np.int16)
    vocabulary = Vocabulary.from_counts(scales, books, [np.ones(4, np.int64)] * 3)
    path = tmp_path / "tokens.npz"
    write_tokens(path, codes, vocabulary, source, overwrite=False)
    stored = load_tokenized_data(path)
    with np.load(path) as archive:
        for name, start in {"2x2": 1, "2x2_2": 5}.items():
            expected = stored["indices_flat"][:, start : start + 4].reshape(-1, 2, 2)
            assert np.array_equal(stored[f"indices_scale_{name}"], expected)
            assert np.array_equal(archive[f"indices_scale_{name}"], expected)
    with pytest.raises(ValueError, match="stands twice"):
        npz.export_gust2(path, tmp_path / "gust2.npz", overwrite=False)
