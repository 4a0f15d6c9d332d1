#!/usr/bin/env bash
# From registered datasets to uploaded checkpoints and metrics. The same command continues after a kill: finished stages
# are skipped, an unfinished training goes on at its last checkpoint.
#
#   WANDB_PROJECT=universal-simulator WANDB_ENTITY=your-entity WANDB_DATASETS="burgers1d_subset_v1" \
#       bash scripts/run_remote_scale.sh
#
# Settings are environment variables:
#   WANDB_DATASETS      names in the registry, separated by blanks (required)
#   WANDB_PROJECT       W&B project, and
#   WANDB_ENTITY        W&B entity: of short artifact references, of training logs, and of uploads to W&B
#   STORE               where checkpoints and metrics go: wandb (default), file:///folder, s3://bucket/folder
#   LOGGER              wandb or csv; by default wandb where STORE is wandb
#   STAGES              "fetch autoencoder cache operator evaluate upload" (default), or some of them
#   TRAIN_CONFIG        of the latent operator; default configs/latent/TASK.yaml, or grid.yaml where there is none
#   AUTOENCODER_CONFIG  default configs/autoencoder/TASK.yaml, or grid.yaml
#   FETCH_FLAGS         flags for scripts/fetch_datasets.py, such as --overwrite where other files are in the way
#   TRAIN_FLAGS         flags for the operator's training, such as those of configs/scale_overrides.md
#   AUTOENCODER_FLAGS   the same for the autoencoder's
#   CACHE_FLAGS         flags for scripts/precompute_latent_cache.py
#   EVALUATE_FLAGS      flags for scripts/evaluate.py
#   ACCELERATOR         auto (default), gpu, cpu
#   DEVICES             devices of a node: auto (default) or a number
#   NNODES              nodes (default 1); with more, all must see the same files, see docs/remote.md
#   NODE_RANK, MASTER_ADDR, MASTER_PORT   of this node, where NNODES > 1 outside SLURM
#   REGISTRY            default docs/dataset_registry.yaml
#   DATA_ROOT           where datasets are unpacked; default data/pdebench
#   ARTIFACT_CACHE      where downloads are kept; default artifacts/cache
#   LATENT_CACHE        default data/latent_cache
#   RUNS                checkpoints, logs and results; default runs/remote
#   PYTHON              default .venv/bin/python where it exists, else python3
# Credentials come from WANDB_API_KEY or `wandb login`, and from AWS_* variables; they are neither written nor printed.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/run_remote_scale.sh; exit ;; esac
{ # bash reads to the closing brace before it begins, so that the file may change while it runs
STORE=${STORE:-wandb}
LOGGER=${LOGGER:-$([ "$STORE" = wandb ] && echo wandb || echo csv)}
STAGES=${STAGES:-fetch autoencoder cache operator evaluate upload}
ACCELERATOR=${ACCELERATOR:-auto} DEVICES=${DEVICES:-auto} NNODES=${NNODES:-1} NODE_RANK=${NODE_RANK:-0}
REGISTRY=${REGISTRY:-docs/dataset_registry.yaml}
DATA_ROOT=${DATA_ROOT:-data/pdebench} ARTIFACT_CACHE=${ARTIFACT_CACHE:-artifacts/cache}
LATENT_CACHE=${LATENT_CACHE:-data/latent_cache} RUNS=${RUNS:-runs/remote}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
# Lightning would take the commands of a batch script for tasks that srun started, and wait for the others.
unset SLURM_NTASKS SLURM_NTASKS_PER_NODE
read -ra datasets <<<"${WANDB_DATASETS:-}"
read -ra fetch_flags <<<"${FETCH_FLAGS:-}"
read -ra train_flags <<<"${TRAIN_FLAGS:-}"
read -ra autoencoder_flags <<<"${AUTOENCODER_FLAGS:-}"
read -ra cache_flags <<<"${CACHE_FLAGS:-}"
read -ra evaluate_flags <<<"${EVALUATE_FLAGS:-}"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
# run COMMAND...: print a command as one would type it, then run it; a signal to this script reaches it too.
run() {
    printf '\n$%s\n' "$(printf ' %q' "$@")" >&2
    "$@" &
    child=$!
    wait "$child"
}
child=
stop() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    wait
    exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT

# launch SCRIPT FLAGS...: run a training on all nodes. On one node Lightning starts a process for each device itself.
launch() {
    if [ "$NNODES" = 1 ]; then
        run "$PYTHON" "$@"
    elif [ -n "${SLURM_JOB_ID:-}" ]; then
        run srun --nodes "$NNODES" --ntasks-per-node "$DEVICES" "$PYTHON" "$@"
    else
        run "$PYTHON" -m torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" \
            --nproc_per_node "$DEVICES" --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" "$@"
    fi
}
# A folder remembers in request.txt what was asked for, and has a mark once that is finished.
is_same() { # FOLDER REQUEST
    [ "$(cat "$1/request.txt" 2>/dev/null)" = "$2" ]
}
is_finished() { # FOLDER REQUEST
    is_same "$1" "$2" && [ -e "$1/done" ] && printf '%s is finished, skipped\n' "$1" >&2
}
begin() { # FOLDER REQUEST
    mkdir -p "$1"
    rm -f "$1/done"
    printf '%s\n' "$2" >"$1/request.txt.$NODE_RANK"
    mv "$1/request.txt.$NODE_RANK" "$1/request.txt"
}
finish() { # FOLDER
    [ "$NODE_RANK" != 0 ] || touch "$1/done"
}
# train FOLDER CONFIG INPUT FLAGS...: INPUT names what it is trained on. Checkpoints of another request are neither
# continued nor replaced.
train() {
    local folder=$1 config=$2 input=$3 extra=() request last
    shift 3
    request=$input$'\n'"$*"$'\n'"$(cat "$config")"
    last=$folder/checkpoints/last.ckpt
    if is_finished "$folder" "$request"; then return; fi
    if [ -e "$last" ] && ! is_same "$folder" "$request"; then
        diff "$folder/request.txt" - <<<"$request" >&2 || true
        fail "$folder was trained with other settings or data (< then, > now); set RUNS to another folder or delete it"
    fi
    begin "$folder" "$request"
    [ "$LOGGER" != wandb ] || extra+=(--trainer.logger WandbLogger)
    [ ! -e "$last" ] || extra+=(--ckpt_path last)
    launch scripts/train.py fit --config "$config" "$@" --trainer.default_root_dir "$folder" \
        --trainer.accelerator "$ACCELERATOR" --trainer.devices "$DEVICES" --trainer.num_nodes "$NNODES" "${extra[@]}"
    finish "$folder"
}
# check CONFIG FLAGS...: whether a training would understand its settings, before anything else takes hours.
check() {
    [ -e "$1" ] || fail "no $1; write it, or set TRAIN_CONFIG or AUTOENCODER_CONFIG"
    "$PYTHON" scripts/train.py fit --config "$@" --print_config >/dev/null
}
# default_config FOLDER: the task's own, else that of all grids.
default_config() {
    [ -e "configs/$1/$task.yaml" ] && echo "configs/$1/$task.yaml" || echo "configs/$1/$kind.yaml"
}
# checkpoint FOLDER: the best of a training, the last of one that was not validated.
checkpoint() {
    [ -e "$1/checkpoints/best.ckpt" ] && echo "$1/checkpoints/best.ckpt" || echo "$1/checkpoints/last.ckpt"
}
digest() {
    sha256sum "$1" | cut -c 1-64
}
# data TASK SPLIT: the dataset's file; nothing where the dataset has no such split.
data() {
    local path
    for path in "$DATA_ROOT/$1_$2".{h5,zarr}; do
        [ ! -e "$path" ] || echo "$path"
    done
}
# await FILE: other nodes than the first wait for what it makes, unless it fails meanwhile.
await() {
    [ -e "$1" ] || printf 'waiting for node 0 to make %s\n' "$1" >&2
    until [ -e "$1" ]; do
        [ ! "$RUNS/failed" -nt "$RUNS/node$NODE_RANK" ] || fail "node 0 failed, see its output"
        sleep 2
    done
}

# The stages. $task, $kind (grid, mesh, particles) and $dataset (its checksum) are those of the dataset at hand.
fetch() {
    run "$PYTHON" scripts/fetch_datasets.py "${datasets[@]}" --root "$DATA_ROOT" --cache "$ARTIFACT_CACHE" \
        --registry "$REGISTRY" "${fetch_flags[@]}"
}
autoencoder() {
    local paths=(--data.data_path "$(data "$task" train)") split path
    if [ "$kind" != grid ]; then
        paths=()
        for split in train val test; do
            path=$(data "$task" "$split")
            paths+=("--data.init_args.${split}_path" "${path:-null}")
        done
    fi
    train "$RUNS/$task/autoencoder" "$autoencoder_config" "$dataset" "${paths[@]}" "${autoencoder_flags[@]}"
}
cache() {
    local splits=() split
    for split in train val test; do
        [ -z "$(data "$task" "$split")" ] || splits+=("$split")
    done
    run "$PYTHON" scripts/precompute_latent_cache.py --tasks "$task" --splits "${splits[@]}" --root "$DATA_ROOT" \
        --cache-dir "$LATENT_CACHE" --config "$autoencoder_config" --checkpoint "$(checkpoint "$RUNS/$task/autoencoder")" \
        --accelerator "$ACCELERATOR" --devices "$DEVICES" "${cache_flags[@]}"
}
operator() {
    if [ "$kind" = mesh ]; then
        printf '%s is steady: no operator to train\n' "$task" >&2
        return
    fi
    await "$LATENT_CACHE/${task}_train/index.json"
    await "$LATENT_CACHE/${task}_val/index.json"
    train "$RUNS/$task/operator" "$train_config" "$dataset $(digest "$(checkpoint "$RUNS/$task/autoencoder")")" \
        --data.init_args.task "$task" --data.init_args.root "$DATA_ROOT" --training.latent_cache_dir "$LATENT_CACHE" \
        "${train_flags[@]}"
}
evaluate() {
    local folder=$RUNS/$task/evaluation model path request
    [ "$kind" != mesh ] || return 0
    model=$(checkpoint "$RUNS/$task/operator")
    path=$(data "$task" test)
    path=${path:-$(data "$task" val)}
    request="$dataset $path $(digest "$model") ${evaluate_flags[*]}"
    if is_finished "$folder" "$request"; then return; fi
    begin "$folder" "$request"
    run "$PYTHON" scripts/evaluate.py --checkpoint "$model" --data_path "$path" --output_dir "$folder" \
        --accelerator "$ACCELERATOR" "${evaluate_flags[@]}"
    finish "$folder"
}
upload() { # what is there already is not sent again
    local stage file kind_of_file
    for stage in autoencoder operator evaluation; do
        [ -e "$RUNS/$task/$stage/done" ] || continue
        file=$RUNS/$task/evaluation/metrics.json kind_of_file=metrics
        [ "$stage" = evaluation ] || { file=$(checkpoint "$RUNS/$task/$stage") && kind_of_file=model; }
        run "$PYTHON" scripts/upload_artifact.py "$task-$stage" "$kind_of_file" "$file" --store "$STORE" \
            --cache-dir "$ARTIFACT_CACHE" --metadata "{\"task\": \"$task\", \"dataset_sha256\": \"$dataset\"}"
    done
}

[ "${#datasets[@]}" -gt 0 ] || fail "WANDB_DATASETS is empty; set it to names of $REGISTRY, such as burgers1d_subset_v1"
for stage in $STAGES; do
    case $stage in
    fetch | autoencoder | cache | operator | evaluate | upload) ;;
    *) fail "no stage '$stage'; STAGES takes fetch autoencoder cache operator evaluate upload" ;;
    esac
done
if [ "$NNODES" != 1 ]; then
    [ "$DEVICES" != auto ] || fail "NNODES is $NNODES: set DEVICES to the number of devices of each node"
    [ -n "${SLURM_JOB_ID:-}${MASTER_ADDR:+${MASTER_PORT:-}}" ] ||
        fail "NNODES is $NNODES: set MASTER_ADDR and MASTER_PORT to where node 0 listens"
fi
found=$("$PYTHON" -m gust_torch.artifacts.registry tasks "${datasets[@]}" --registry "$REGISTRY")
repeated=$(cut -d ' ' -f 1 <<<"$found" | sort | uniq -d)
[ -z "$repeated" ] || fail "several datasets hold $repeated; run them one by one, each with its own RUNS and DATA_ROOT"
mkdir -p "$RUNS"
if [ "$NODE_RANK" = 0 ]; then
    exec 9>"$RUNS/lock" # held as long as this script or a command of it lives
    flock --timeout 10 9 || fail "another run, or a training that it left behind, uses $RUNS (fuser $RUNS/lock)"
    trap '[ $? = 0 ] || touch "$RUNS/failed"' EXIT
else # the first node does what is not training
    touch "$RUNS/node$NODE_RANK"
    STAGES=$(printf '%s\n' $STAGES | grep -x -e autoencoder -e operator | tr '\n' ' ') || exit 0
fi

# each COMMAND...: run it for every dataset.
each() {
    while read -r task kind dataset <&3; do
        train_config=${TRAIN_CONFIG:-$(default_config latent)}
        autoencoder_config=${AUTOENCODER_CONFIG:-$(default_config autoencoder)}
        "$@"
    done 3<<<"$found"
}
check_settings() {
    local stage
    for stage in $STAGES; do
        [ ! -e "$RUNS/$task/$stage/checkpoints/last.ckpt" ] || continue
        case $stage in
        autoencoder) check "$autoencoder_config" "${autoencoder_flags[@]}" ;;
        operator) [ "$kind" = mesh ] || check "$train_config" "${train_flags[@]}" ;;
        esac
    done
}
work() {
    local stage
    for stage in $STAGES; do
        [ "$stage" = fetch ] || "$stage"
    done
}
[ "$NODE_RANK" != 0 ] || each check_settings
case " $STAGES " in *" fetch "*) fetch ;; esac
for name in "${datasets[@]}"; do
    [ "$NODE_RANK" = 0 ] || await "$DATA_ROOT/.gust/$name.json"
done
each work
exit
}
