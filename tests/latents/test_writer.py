"""Making caches: killed, continued, shared out, refused, replaced; always the same bytes."""

import errno
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.latents import writer
from gust_torch.latents.cache import LatentCache
from gust_torch.models.latent_autoencoder import LatentAutoencoder

# Twenty samples in batches of four.
NUM_BATCHES = 5
FILES = [
    "checksums.npy",
    "encoder.ckpt",
    "index.json",
    "latents.npy",
    "parameters.npy",
    "time.npy",
    "trajectory.npy",
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_process(work: Callable[[], None]) -> int | None:
    """Run in a process of its own; its exit code."""

    def run() -> None:
        torch.set_num_threads(1)  # thread pools do not survive a fork
        work()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def plan(root: Path, model: LatentAutoencoder, helpers) -> partial:
    """Plan of the training split."""
    return helpers.make_plan(root / "burgers1d_train.h5", model)


@pytest.fixture
def reference(tmp_path: Path, plan: partial, helpers) -> dict[str, bytes]:
    """Files of a cache that was made without interruption."""
    return contents(helpers.make_cache(tmp_path / "reference" / "burgers1d_train", plan))


def test_what_a_cache_holds(tmp_path: Path, plan: partial, reference: dict[str, bytes]) -> None:
    assert sorted(reference) == FILES
    folder = tmp_path / "reference"
    assert [path.name for path in folder.iterdir()] == ["burgers1d_train"]  # no lock, no hidden folder
    array = np.load(folder / "burgers1d_train" / "latents.npy", mmap_mode="r")
    assert array.shape == (20, 3, 8)
    assert array.dtype == np.float32
    checksums = np.load(folder / "burgers1d_train" / "checksums.npy")
    assert checksums.tolist() == [zlib.crc32(row.tobytes()) for row in array]


@pytest.mark.parametrize("num_batches", [0, 1, 2, 3, 4])
def test_a_killed_run_continues(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers, num_batches: int
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"

    def work() -> None:
        for count, _ in enumerate(helpers.encode(plan(folder))):
            if count == num_batches:
                kill_self()

    assert in_process(work) == -signal.SIGKILL
    with pytest.raises(ValueError, match=r"no finished latent cache at .*repeat the command"):
        LatentCache.open(folder)
    with plan(folder) as again:
        pending = again.begin()
        assert len(pending) == NUM_BATCHES - 1 - num_batches
        for _ in helpers.encode(again, pending):
            pass
        again.finish()
    assert contents(folder) == reference


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", range(14))
def test_a_kill_at_any_change_of_names(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers, step: int, overwrite: bool
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    if overwrite:
        older = helpers.make_plan(plan.keywords["source"], helpers.make_model(seed=1))
        helpers.make_cache(folder, older)

    def work() -> None:
        remaining = iter(range(step))

        def counted(original: Callable) -> partial:
            def call(*arguments: object, **options: object) -> object:
                if next(remaining, None) is None:
                    kill_self()
                return original(*arguments, **options)

            return call

        for module, name in ((os, "replace"), (writer.shutil, "rmtree"), (Path, "unlink")):
            setattr(module, name, counted(getattr(module, name)))
        helpers.make_cache(folder, plan, overwrite=overwrite)

    exitcode = in_process(work)
    assert exitcode in (0, -signal.SIGKILL)
    if exitcode != 0 and folder.exists():  # either the old one or the new one, whole
        state = LatentCache.open(folder).key.differences(plan(folder).index.key)
        assert state == [] if not overwrite else [line[:8] for line in state] in ([], ["encoder:"])
    helpers.make_cache(folder, plan, overwrite=overwrite)
    assert contents(folder) == reference
    left = {path.name for path in folder.parent.iterdir()} - {"..burgers1d_train.part.lock"}
    assert left == {"burgers1d_train"}


def test_two_processes_share_the_batches(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as first:
        pending = first.begin()

        def work(rank: int) -> None:
            torch.set_num_threads(1)
            for _ in helpers.encode(plan(folder), pending[rank::2]):
                pass

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        first.finish()
    assert contents(folder) == reference


def test_a_second_run_does_nothing(tmp_path: Path, plan: partial, reference: dict, helpers) -> None:
    folder = tmp_path / "reference" / "burgers1d_train"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with plan(folder) as again:
        assert again.begin() is None
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_key_is_refused(tmp_path: Path, plan: partial, reference: dict, helpers) -> None:
    folder = tmp_path / "reference" / "burgers1d_train"
    other = helpers.make_plan(plan.keywords["source"], helpers.make_model(seed=1))
    with pytest.raises(ValueError, match=r"is stale: encoder: .* now; give --overwrite"):
        helpers.make_cache(folder, other)
    assert contents(folder) == reference
    with other(folder, overwrite=True) as replacing:
        for _ in helpers.encode(replacing):
            assert contents(folder) == reference  # until the new one is complete
        replacing.finish()
    assert LatentCache.open(folder).key == other(folder).index.key


def test_what_an_earlier_replacement_left_is_not_in_the_way(tmp_path: Path, plan: partial, helpers) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    helpers.make_cache(folder, plan)
    old = folder.with_name(".burgers1d_train.old")
    old.mkdir()
    (old / "latents.npy").touch()
    helpers.make_cache(folder, plan, overwrite=True)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_an_unfinished_cache_with_another_key(tmp_path: Path, plan: partial, helpers) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as stopped:
        next(helpers.encode(stopped))
    for other, words in (
        (
            partial(plan, dtype="float16"),
            "dtype: float32 there, float16 now",
        ),
        (partial(plan, batch_size=8), "batch_size: 4 there, 8 now"),
        (partial(plan, limit=8), "num_samples: 20 there, 8 now"),
    ):
        with pytest.raises(ValueError, match=f"part is of another request .*{words}.*--overwrite"):
            helpers.make_cache(folder, other)
    helpers.make_cache(folder, other, overwrite=True)
    assert len(LatentCache.open(folder)) == 8


def test_a_damaged_record_begins_again_on_demand(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    part = folder.with_name(".burgers1d_train.part")
    part.mkdir(parents=True)
    (part / "stage.json").write_text('{"request": {')
    (part / "latents.npy").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"stage\.json is damaged; remove"):
        helpers.make_cache(folder, plan)
    helpers.make_cache(folder, plan, overwrite=True)
    assert contents(folder) == reference


def test_samples_that_a_power_cut_tore_are_made_again(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as stopped:
        encoding = helpers.encode(stopped)
        next(encoding)
        next(encoding)
    with (stopped.part / "latents.npy").open("r+b") as file:
        file.seek(-19 * 3 * 8 * 4, os.SEEK_END)  # sample 1
        file.write(bytes(8))
    with plan(folder) as again:
        assert again.begin() == [range(0, 4), range(8, 12), range(12, 16), range(16, 20)]
    helpers.make_cache(folder, plan)
    assert contents(folder) == reference


def test_foreign_folders_stay(tmp_path: Path, plan: partial, helpers) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("ten years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not a latent cache"):
            helpers.make_cache(folder, plan, overwrite=overwrite)
    assert contents(folder) == {"thesis.tex": b"ten years of work"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_told_before_any_work(
    tmp_path: Path, plan: partial, helpers, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            helpers.make_cache(folder, plan)
    assert Path(caught.value.filename).name == "latents.npy"
    assert list(folder.parent.iterdir()) == []


def test_a_disk_that_fills_up_leaves_a_state_that_continues(
    tmp_path: Path, plan: partial, reference: dict[str, bytes], helpers
) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as stopped:
        encoding = helpers.encode(stopped)
        next(encoding)
        for file in stopped._files:
            file._file.close()
            file._file = Path("/dev/full").open("wb")  # noqa: SIM115
        with pytest.raises(OSError, match="No space left") as caught:
            next(encoding)
        stopped._files = None
    assert Path(caught.value.filename).name == "latents.npy"
    helpers.make_cache(folder, plan)
    assert contents(folder) == reference


def test_data_that_change_meanwhile(tmp_path: Path, plan: partial, helpers) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    source = plan.keywords["source"]
    with plan(folder) as writing:
        for _ in helpers.encode(writing):
            pass
        source.touch()  # the content decides
        source.unlink()
        helpers.write_task(source, (6, 9, 5), seed=7)
        with pytest.raises(ValueError, match=r"burgers1d_train\.h5 changed while it was encoded"):
            writing.finish()
    assert not folder.exists()
    assert not writing.part.exists()
    helpers.make_cache(folder, helpers.make_plan(source, plan.keywords["model"]))


def test_the_lock(tmp_path: Path, plan: partial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.0)
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as first:
        first.begin()
        with pytest.raises(BlockingIOError, match="another process"):
            plan(folder).begin()
    with plan(folder) as second:
        second.begin()


def test_wrong_latents(tmp_path: Path, plan: partial) -> None:
    folder = tmp_path / "cache" / "burgers1d_train"
    with plan(folder) as writing:
        writing.begin()
        good = np.zeros((4, 3, 8), np.float32)
        bad = good.copy()
        bad[2, 1, 1] = np.nan
        with pytest.raises(ValueError, match="latents of sample 10 hold NaN"):
            writing.write(8, bad)
        writing.write(12, good)
        with pytest.raises(ValueError, match="4 batches are missing"):
            writing.finish()


def test_float16_overflow(tmp_path: Path, root: Path, model: LatentAutoencoder, helpers) -> None:
    plan = helpers.make_plan(root / "burgers1d_train.h5", model, dtype="float16")
    with plan(tmp_path / "cache" / "burgers1d_train") as writing:
        writing.begin()
        with pytest.raises(ValueError, match=r"float16.*store float32"):
            writing.write(0, np.full((1, 3, 8), 1e5, np.float32))
