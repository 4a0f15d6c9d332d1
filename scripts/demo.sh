#!/usr/bin/env bash
# The main job, small and end to end: simulate turbulence, train a tokenizer on it, export tokens, compare spectra.
# Everything lands in ./demo_output. Finished stages are kept: delete the folder to start over.
set -eu
python=${PYTHON:-.venv/bin/python}
out=${DEMO_OUTPUT:-demo_output}

# run COMMAND...: print a command as one would type it, then run it.
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}
# unless FILE COMMAND...: run a stage whose last file is not there yet.
unless() {
    if [ -e "$1" ]; then
        printf '\n%s is there, stage skipped\n' "$1"
    else
        shift
        run "$@"
    fi
}
# simulate FOLDER FLAGS...: a run of the solver, continued if it was interrupted.
simulate() {
    folder=$1
    shift
    if [ -e "$folder/output.h5" ]; then
        run "$python" -m solvers.py2d_turbulence.run_solver --output_dir "$folder" --resume
    else
        run "$python" -m solvers.py2d_turbulence.run_solver --output_dir "$folder" "$@"
    fi
}

# From a random field to statistically steady turbulence, which takes 20 to 30 time units; then the data.
simulate "$out/spinup" --NX 128 --dt 5e-4 --tTotal 30 --tSave 10 --dtype float32 --seed 1
simulate "$out/data" --NX 128 --dt 5e-4 --tTotal 60 --tSave 0.1 --dtype float32 --ic_file "$out/spinup/output.h5"

unless "$out/vqvae/checkpoints/last.ckpt" "$python" scripts/train.py fit --config configs/vqvae/demo.yaml \
    --data.data_path "$out/data/output.h5" --trainer.default_root_dir "$out/vqvae"

unless "$out/tokens.npz" "$python" -m gust_torch.tokenizer save --checkpoint "$out/vqvae/checkpoints/last.ckpt" \
    --data_path "$out/data/output.h5" --output "$out/tokens.npz"

# The last tenth of the frames was held out of training.
run "$python" -m gust_torch.analyze_reconstruction --checkpoint "$out/vqvae/checkpoints/last.ckpt" \
    --data_path "$out/data/output.h5" --sample_start 545 --output_dir "$out/analysis"
