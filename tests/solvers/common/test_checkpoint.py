"""Restart files: bit for bit, all or nothing."""

import math
from pathlib import Path

import numpy as np
import pytest

from solvers.common.checkpoint import check_parameters, load_checkpoint, save_checkpoint


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "u_hat": rng.standard_normal((4, 3)) + 1j * rng.standard_normal((4, 3)),
        "file": np.array([np.nan, -0.0, np.inf]),
        "step": np.int64(7),
        "empty": np.zeros((0, 2), np.float32),
    }
    meta = {"dt": 0.1 + 0.2, "nothing": None, "name": "α", "flag": True, "bad": math.nan, "n": 2**60}
    save_checkpoint(tmp_path / "run.npz", arrays, meta)
    loaded = load_checkpoint(tmp_path / "run.npz")
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded.arrays[name].dtype == np.asarray(array).dtype
        assert loaded.arrays[name].shape == np.shape(array)
        assert loaded.arrays[name].tobytes() == np.asarray(array).tobytes()
    assert math.isnan(loaded.meta["bad"])
    assert {**loaded.meta, "bad": 0} == {**meta, "bad": 0}
    assert loaded.meta["flag"] is True
    assert [item.name for item in tmp_path.iterdir()] == ["run.npz"]


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.npz"
    save_checkpoint(path, {"a": np.ones(3)}, {"n": 1})

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"a": np.zeros(3)}, {"n": 2})
    assert load_checkpoint(path).meta["n"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["run.npz"]


def test_missing_and_damaged_checkpoints_are_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    with pytest.raises(ValueError, match="found none; start without --resume"):
        load_checkpoint(path)
    save_checkpoint(path, {"a": np.arange(1000.0)}, {})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    for spoiled in (whole[: len(whole) // 2], bytes(flipped), b"", b"text"):
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match=r"run\.npz: .*start again"):
            load_checkpoint(path)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(ValueError, match="expected a checkpoint"):
        load_checkpoint(path)


def test_changed_parameters_are_named(tmp_path: Path) -> None:
    saved = {"Re": 1000.0, "NX": 64, "seed": None, "old": 1, "tTotal": 1.0}
    now = {"Re": 2000.0, "NX": 64, "seed": 3, "new": "x", "tTotal": 2.0}
    with pytest.raises(ValueError, match=r"Re: 1000.0 in the checkpoint, 2000.0 now; seed.*old: 1.*absent"):
        check_parameters(tmp_path, saved, now, apart_from=("tTotal",))
    check_parameters(tmp_path, saved, saved)
