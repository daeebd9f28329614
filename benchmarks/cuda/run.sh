#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Build the CUDA kernels without torch, then check and time them:
#
#   benchmarks/cuda/run.sh [BUILD_FOLDER] [COMMAND...]     commands: check variants races bench
#                                                          quick tune; 'none': only build
#
# ARCH (default sm_90), ROWS (a file of further table rows for tune), MAX_JOBS (compilers at a
# time) and CUDA_HOME may be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-/tmp/bench_kernels}
mkdir -p "$build"
nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
flags=(-std=c++17 -O3 -arch="${ARCH:-sm_90}" -Xptxas -v)
if [ -n "${ROWS:-}" ]; then flags+=("-DUPFIRDN2D_TUNING_ROWS=\"$(realpath "$ROWS")\""); fi

sources=(csrc/cuda/upfirdn2d_cuda.cu csrc/cuda/upfirdn2d_float16.cu
  csrc/cuda/upfirdn2d_bfloat16.cu csrc/cuda/upfirdn2d_float32.cu benchmarks/cuda/bench_kernels.cu)
objects=()
for source in "${sources[@]}"; do objects+=("$build/$(basename "$source" .cu).o"); done
compile() {
  local name
  name=$(basename "$1" .cu)
  "$nvcc" "${@:2}" -c "$1" -o "$build/$name.o" >"$build/$name.log" 2>&1
}
export -f compile
export nvcc build
printf '%s\n' "${sources[@]}" |
  xargs -P "${MAX_JOBS:-${#sources[@]}}" -I '{}' bash -c 'compile "$@"' _ '{}' "${flags[@]}" ||
  { grep -h -E "error|fatal" "$build"/*.log | head -20; exit 1; }
"$nvcc" -arch="${ARCH:-sm_90}" "${objects[@]}" -o "$build/bench_kernels"

shift || true
for command in "${@:-check}"; do
  if [ "$command" = none ]; then continue; fi
  # A command may carry a filter: 'bench:f16 nchw'
  if [[ $command == *:* ]]; then
    "$build/bench_kernels" "${command%%:*}" "${command#*:}"
  else
    "$build/bench_kernels" "$command"
  fi
done
