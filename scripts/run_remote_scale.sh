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

: "${WANDB_DATASETS:?set it to names of docs/dataset_registry.yaml, such as burgers1d_subset_v1}"
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
read -ra datasets <<<"$WANDB_DATASETS"
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
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; wait; exit 143' TERM INT

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
# is_finished FOLDER REQUEST: whether the folder holds the outcome of a request. What another request has begun there is
# neither continued nor replaced.
is_finished() {
    local folder=$1 request=$2
    if [ -e "$folder/request.txt" ] && [ "$(cat "$folder/request.txt")" != "$request" ]; then
        diff "$folder/request.txt" - <<<"$request" >&2 || true
        fail "$folder was made with other settings or data (< then, > now); set RUNS to another folder or delete it"
    fi
    if [ -e "$folder/done" ]; then
        printf '%s is finished, skipped\n' "$folder" >&2
        return 0
    fi
    mkdir -p "$folder"
    printf '%s\n' "$request" >"$folder/request.txt.$NODE_RANK"
    mv "$folder/request.txt.$NODE_RANK" "$folder/request.txt"
    return 1
}
finish() {
    [ "$NODE_RANK" != 0 ] || touch "$1/done"
}
# train FOLDER CONFIG INPUT FLAGS...: INPUT names what it is trained on.
train() {
    local folder=$1 config=$2 input=$3 extra=()
    shift 3
    [ -e "$config" ] || fail "no $config; write it, or set TRAIN_CONFIG or AUTOENCODER_CONFIG"
    ! is_finished "$folder" "$input"$'\n'"$*"$'\n'"$(cat "$config")" || return 0
    [ "$LOGGER" != wandb ] || extra+=(--trainer.logger WandbLogger)
    [ ! -e "$folder/checkpoints/last.ckpt" ] || extra+=(--ckpt_path last)
    launch scripts/train.py fit --config "$config" "$@" --trainer.default_root_dir "$folder" \
        --trainer.accelerator "$ACCELERATOR" --trainer.devices "$DEVICES" --trainer.num_nodes "$NNODES" "${extra[@]}"
    finish "$folder"
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
# await FILE: other nodes than the first wait for what it makes.
await() {
    until [ -e "$1" ]; do sleep 2; done
}

# The stages. $task, $kind (grid, mesh, particles) and $dataset (its checksum) are those of the dataset at hand.
fetch() {
    run "$PYTHON" scripts/fetch_datasets.py "${datasets[@]}" --root "$DATA_ROOT" --cache "$ARTIFACT_CACHE" \
        --registry "$REGISTRY"
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
    train "$RUNS/$task/operator" "$train_config" "$dataset $(digest "$(checkpoint "$RUNS/$task/autoencoder")")" \
        --data.init_args.task "$task" --data.init_args.root "$DATA_ROOT" --training.latent_cache_dir "$LATENT_CACHE" \
        "${train_flags[@]}"
}
evaluate() {
    local folder=$RUNS/$task/evaluation model path
    [ "$kind" != mesh ] || return 0
    model=$(checkpoint "$RUNS/$task/operator")
    path=$(data "$task" test)
    path=${path:-$(data "$task" val)}
    ! is_finished "$folder" "$dataset $path $(digest "$model") ${evaluate_flags[*]}" || return 0
    run "$PYTHON" scripts/evaluate.py --checkpoint "$model" --data_path "$path" --output_dir "$folder" \
        --accelerator "$ACCELERATOR" "${evaluate_flags[@]}"
    finish "$folder"
}
upload() {
    local stage file name
    for stage in autoencoder operator evaluation; do
        [ -e "$RUNS/$task/$stage/done" ] || continue
        name=$task-$stage
        file=$RUNS/$task/$stage/metrics.json
        [ "$stage" = evaluation ] || file=$(checkpoint "$RUNS/$task/$stage")
        ! is_finished "$RUNS/$task/upload-$stage" "$STORE $(digest "$file")" || continue
        run "$PYTHON" scripts/upload_artifact.py "$name" "$([ "$stage" = evaluation ] && echo metrics || echo model)" \
            "$file" --metadata "{\"task\": \"$task\", \"dataset_sha256\": \"$dataset\"}" --store "$STORE"
        finish "$RUNS/$task/upload-$stage"
    done
}

for stage in $STAGES; do
    case $stage in
    fetch | autoencoder | cache | operator | evaluate | upload) ;;
    *) fail "no stage '$stage'; STAGES takes fetch autoencoder cache operator evaluate upload" ;;
    esac
done
if [ "$NNODES" != 1 ] && [ "$DEVICES" = auto ]; then
    fail "NNODES is $NNODES: set DEVICES to the number of devices of each node"
fi
if [ "$NODE_RANK" != 0 ]; then # the first node does what is not training
    STAGES=$(printf '%s\n' $STAGES | grep -x -e autoencoder -e operator | tr '\n' ' ')
    await "$DATA_ROOT/.gust/${datasets[-1]}.json"
else
    mkdir -p "$RUNS"
    exec 9>"$RUNS/lock" # held as long as this script or a command of it lives
    flock --timeout 10 9 || fail "another run uses $RUNS; wait for it, or set RUNS to another folder"
fi
case " $STAGES " in *" fetch "*) fetch ;; esac
found=$("$PYTHON" -m gust_torch.artifacts.registry tasks "${datasets[@]}" --registry "$REGISTRY")
while read -r task kind dataset <&3; do
    train_config=${TRAIN_CONFIG:-$(default_config latent)}
    autoencoder_config=${AUTOENCODER_CONFIG:-$(default_config autoencoder)}
    for stage in $STAGES; do
        [ "$stage" = fetch ] || "$stage"
    done
done 3<<<"$found"
