#!/usr/bin/env bash
# From registered datasets to uploaded checkpoints and metrics; `--help` lists the settings. See gust_torch/remote.py.
cd "$(dirname "$0")/.." || exit
exec "${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}" -m gust_torch.remote "$@"
