#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Build the CUDA kernels without torch, then check and time them:
#
#   benchmarks/cuda/run.sh [BUILD_FOLDER] [COMMAND...]     commands: check bench quick tune
#
# ARCH (default sm_90), ROWS (a file of further table rows for tune) and CUDA_HOME may be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-/tmp/bench_kernels}
mkdir -p "$build"
nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
flags=(-std=c++17 -O3 -arch="${ARCH:-sm_90}" -Xptxas -v)
if [ -n "${ROWS:-}" ]; then flags+=("-DUPFIRDN2D_TUNING_ROWS=\"$(realpath "$ROWS")\""); fi

sources=(csrc/cuda/upfirdn2d_cuda.cu csrc/cuda/upfirdn2d_float16.cu
  csrc/cuda/upfirdn2d_bfloat16.cu csrc/cuda/upfirdn2d_float32.cu benchmarks/cuda/bench_kernels.cu)
objects=() jobs=()
for source in "${sources[@]}"; do
  name=$(basename "$source" .cu)
  objects+=("$build/$name.o")
  "$nvcc" "${flags[@]}" -c "$source" -o "$build/$name.o" >"$build/$name.log" 2>&1 &
  jobs+=($!)
done
for job in "${jobs[@]}"; do
  wait "$job" || { grep -h -E "error|fatal" "$build"/*.log | head -20; exit 1; }
done
"$nvcc" -arch="${ARCH:-sm_90}" "${objects[@]}" -o "$build/bench_kernels"

shift || true
for command in "${@:-check}"; do
  # A command may carry a filter: 'bench:f16 nchw'
  if [[ $command == *:* ]]; then
    "$build/bench_kernels" "${command%%:*}" "${command#*:}"
  else
    "$build/bench_kernels" "$command"
  fi
done
