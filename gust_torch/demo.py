"""The main job, small and end to end: simulate turbulence, train a tokenizer, export tokens, compare spectra.

Everything lands in ./demo_output ($DEMO_OUTPUT). Finished steps are kept, an interrupted one goes on: delete
the folder to start over.
"""

import os
import sys
from functools import partial
from pathlib import Path

import yaml

from gust_torch.stages import print_settings, run, say, training_falls_short, wanted_end
from solvers.common.cli import run_command
from solvers.common.hdf5_utils import read_hdf5_info
from solvers.common.stage import Stage

SOLVER = ("-m", "solvers.py2d_turbulence.run_solver", "--output_dir")
SMALL = ("--NX", "128", "--dt", "5e-4", "--dtype", "float32")
CONFIG = "configs/lapped/turbulence_128.yaml"
HELD_OUT = "545"  # first frame of the last tenth, which was held out of training


def make(out: Path) -> None:
    """Do what is not done yet; a ValueError or the SystemExit of a step where one does not reach its end."""
    data, model = out / "data" / "output.h5", out / "vqvae" / "checkpoints" / "last.ckpt"
    # From a random field to statistically steady turbulence, which takes 20 to 30 time units; then the data.
    spinup = (*SMALL, "--tTotal", "30", "--tSave", "10", "--seed", "1")
    frames = (*SMALL, "--tTotal", "60", "--tSave", "0.1", "--ic_file")
    inputs = ("--checkpoint", model, "--data_path", data, "--search", "8")
    tokens = ("-m", "gust_torch.tokenizer", "save", "--overwrite", *inputs, "--output", out / "tokens.npz")
    analysis = ("-m", "gust_torch.analyze_reconstruction", *inputs, "--sample_start", HELD_OUT)
    report = out / "analysis.txt"
    steps = {
        "spinup": partial(simulate, out / "spinup", spinup),
        "data": partial(simulate, out / "data", (*frames, str(out / "spinup" / "output.h5"))),
        "model": partial(train, out / "vqvae", data),
        "tokens": partial(run, *tokens),
        "analysis": partial(run, *analysis, "--output_dir", out / "analysis", output=report),
    }
    config = yaml.safe_load(Path(CONFIG).read_text())
    with Stage(out, {"spinup": list(spinup), "data": list(frames), "model": config}) as stage:
        stage.begin()
        for name, step in steps.items():
            if stage.progress.get(name):
                say("", f"{name} is there, step skipped")
                continue
            step()
            stage.record(**{name: True})
        stage.finish()
    print(report.read_text(encoding="utf-8"), end="")  # the numbers and the pictures' paths


def simulate(folder: Path, flags: tuple[str, ...]) -> None:
    """Begin or continue a simulation."""
    begun = (folder / "checkpoint.npz").exists()
    run(*SOLVER, folder, *(("--resume",) if begun else ("--overwrite", *flags)))
    if not read_hdf5_info(folder / "output.h5").metadata["complete"]:
        raise ValueError(f"{folder} is not complete; the same command continues")


def train(folder: Path, data: Path) -> None:
    """Begin or continue the training."""
    command = ("scripts/train.py", "fit", "--config", CONFIG, "--data.data_path", data)
    last = folder / "checkpoints" / "last.ckpt"
    resumed = ("--ckpt_path", "last") if last.exists() else ()
    run(*command, "--trainer.default_root_dir", folder, *resumed)
    if missing := training_falls_short(last, wanted_end(print_settings(*command))):
        raise ValueError(f"{last}: {missing}; the same command continues the training")


def main() -> int:
    """Make the demo; return the exit code."""
    return run_command(lambda: make(Path(os.environ.get("DEMO_OUTPUT") or "demo_output")))


if __name__ == "__main__":
    sys.exit(main())
