#!/usr/bin/env bash
# The main job, small and end to end: simulate turbulence, train a tokenizer on it, export tokens, compare spectra.
# Everything lands in ./demo_output. Finished stages are kept, an interrupted one goes on: delete the folder to start
# over.
set -eu
python=${PYTHON:-.venv/bin/python}
out=${DEMO_OUTPUT:-demo_output}
model=$out/vqvae/checkpoints/last.ckpt
mkdir -p "$out"

# run COMMAND...: print a command as one would type it, then run it.
run() {
    printf '\n$ %s\n' "$*" >&2
    "$@"
}
# stage NAME COMMAND...: run a command that has not come to its end before.
stage() {
    local mark=$out/.$1.done
    if [ -e "$mark" ]; then
        printf '\n%s is there, stage skipped\n' "$1"
    else
        shift
        "$@"
        touch "$mark"
    fi
}
# simulate FOLDER FLAGS...
simulate() {
    local folder=$1
    shift
    if [ -e "$folder/checkpoint.npz" ]; then
        run "$python" -m solvers.py2d_turbulence.run_solver --output_dir "$folder" --resume
    else
        run "$python" -m solvers.py2d_turbulence.run_solver --output_dir "$folder" --overwrite "$@"
    fi
}
train() {
    run "$python" scripts/train.py fit --config configs/vqvae/demo.yaml --data.data_path "$out/data/output.h5" \
        --trainer.default_root_dir "$out/vqvae" $([ -e "$model" ] && echo --ckpt_path last)
}
analyze() {
    # The last tenth of the frames was held out of training.
    run "$python" -m gust_torch.analyze_reconstruction --checkpoint "$model" --data_path "$out/data/output.h5" \
        --sample_start 545 --output_dir "$out/analysis" >"$out/analysis.txt"
}

# From a random field to statistically steady turbulence, which takes 20 to 30 time units; then the data.
stage spinup simulate "$out/spinup" --NX 128 --dt 5e-4 --tTotal 30 --tSave 10 --dtype float32 --seed 1
stage data simulate "$out/data" --NX 128 --dt 5e-4 --tTotal 60 --tSave 0.1 --dtype float32 \
    --ic_file "$out/spinup/output.h5"
stage model train
stage tokens run "$python" -m gust_torch.tokenizer save --overwrite --checkpoint "$model" \
    --data_path "$out/data/output.h5" --output "$out/tokens.npz"
stage analysis analyze
cat "$out/analysis.txt" # the numbers and the pictures' paths
