#!/usr/bin/env bash
# Every table of docs/speed.md on one GPU, in under 20 minutes and without a network: bash benchmarks/gpu.sh
# It needs pip install -e '.[cuda]' and torch with CUDA. A benchmark that takes longer than its share is stopped; the
# rows that it has written stay.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
export XLA_PYTHON_CLIENT_PREALLOCATE=false
bench() { # seconds, file, name, arguments
    local seconds=$1 file=$2
    shift 2
    timeout "$seconds" "$python" -m benchmarks "$@" --json "docs/speed/gpu/$file.json" || echo "$file: stopped or failed"
}
"$python" -c 'import jax, sys; sys.exit(jax.default_backend() != "gpu")' || { echo "JAX sees no GPU here" >&2; exit 2; }
rm -rf docs/speed/gpu
bench 300 patch_train patch_train --trunk resnet50 vgg16 efficientnet_lite0 --batch 256 32
bench 250 whole_train whole_train --batch 2 8 32 --stage 2 1
bench 90 exam_train exam_train --shrink 1 --batch 4
bench 120 inference inference --trunk resnet50 vgg16 efficientnet_lite0 --batch 64
bench 60 heatmap heatmap --size 2677 1942 --batch 64
bench 50 prepare prepare --workers 8 --source-size 3000 2400
bench 50 input input --workers 8 --size 1152x896:8
bench 90 input_stages input_stages --workers 8
bench 60 startup startup --repeats 1 --network patch_resnet
bench 120 memory memory
"$python" docs/make_speed.py
