#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Everything that only a GPU can show, in one command:
#
#   bash benchmarks/gpu.sh [--stylegan3 CHECKOUT] [--out FOLDER] [--only STEP,STEP...] [--quick]
#
# Steps, in this order; each writes FOLDER/STEP.log, and a line of outcome here and into
# FOLDER/steps.txt. A failure does not stop those after it; the exit status is 1 after any.
#
#   build      the libraries, in place, for this machine's GPU
#   tests      the test suite, with RESAMPLE_LAYERS_REQUIRE_CUDA=1; in parallel with pytest-xdist
#   host       what compiles for minutes and needs no GPU: tests/cpu_kernels and tests/cuda_host
#   compile    the kernels without torch, for the next three
#   check      every variant against float64
#   memcheck   every variant under compute-sanitizer
#   racecheck  the same, for shared memory
#   training   a training step of the StyleGAN2 example: training.json, profile.txt
#   benchmark  gpu.jsonl
#   plot       gpu.svg
#
# FOLDER is $OUT, or runs/gpu. CHECKOUT is NVIDIA's stylegan3, to compare with. PYTHON names the
# Python with torch; MAX_JOBS bounds compilers and test processes; PYTEST_ADDOPTS goes to pytest.
# Without a GPU each step does what it can (builds, tests on the CPU, tiny benchmarks) and says
# NOT RUN of the rest. benchmarks/NOTES.md says how long the steps take. Into RESULTS.md:
#
#   python -m benchmarks.gpu_report FOLDER...
set -uo pipefail
cd "$(dirname "$0")/.."
here=$PWD out=${OUT:-runs/gpu} stylegan3='' only='' quick=()
while [ $# -gt 0 ]; do
  case $1 in
    --stylegan3) stylegan3=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --only) only=,$2, && shift 2 ;;
    --quick) quick=(--quick) && shift ;;
    *) echo "unknown argument $1; the head of $0 names all" >&2 && exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(realpath "$out")
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=$here/.venv/bin/python; fi
fi
"$PYTHON" -c 'import torch' || { echo "no torch in $PYTHON; PYTHON names another" >&2; exit 2; }
peer=()
if [ -n "$stylegan3" ]; then
  [ -d "$stylegan3/torch_utils/ops" ] || { echo "no stylegan3 in $stylegan3" >&2; exit 2; }
  peer=(--stylegan3 "$(realpath "$stylegan3")")
fi

# What there is. The toolkit behind a wrapped nvcc; one architecture: that of the first GPU
export PYTHONUNBUFFERED=1
jobs=${MAX_JOBS:-$(nproc)}
export MAX_JOBS=$jobs
gpu=$("$PYTHON" -c 'import torch; print(*torch.cuda.get_device_capability(), sep=".")' 2>/dev/null)
CUDA_HOME=$("$PYTHON" -c '
import sys
sys.path.insert(0, "build_backend")
import toolchain
cuda = toolchain.find_cuda()
print(cuda.home if cuda else "")')
if [ -n "$CUDA_HOME" ]; then export CUDA_HOME; else unset CUDA_HOME; fi
if [ -n "$gpu" ]; then export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$gpu}; fi
arch=${gpu:-9.0}
export ARCH=sm_${arch//./}
sanitizer=$(PATH=$PATH:${CUDA_HOME:-}/bin:/usr/local/cuda/bin command -v compute-sanitizer)
kernels=$here/build/bench_kernels

failures=0
say() { echo "$*" | tee -a "$out/steps.txt"; }
wanted() { [ -z "$only" ] || [[ $only == *,$1,* ]]; }

# step NAME REASON COMMAND...: run it, unless REASON says why not
step() {
  local name=$1 reason=$2 begin=$SECONDS
  shift 2
  wanted "$name" || return 0
  if [ -n "$reason" ]; then
    say "NOT RUN: $name, $reason"
    return 0
  fi
  if "$@" >"$out/$name.log" 2>&1; then
    say "ok: $name, $((SECONDS - begin)) s"
  else
    say "FAILED: $name, exit status $? after $((SECONDS - begin)) s; the end of $name.log:"
    tail -n 25 "$out/$name.log"
    failures=$((failures + 1))
  fi
  grep -h '^NOT RUN: ' "$out/$name.log" | sort | uniq -c | sed 's/^ *[0-9]* //' |
    tee -a "$out/steps.txt"
}

tests() {
  local parallel=()
  if [ "$jobs" -gt 1 ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then
    parallel=(-n "$((jobs < 8 ? jobs : 8))" --dist loadfile)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
  fi
  if [ -n "$gpu" ]; then export RESAMPLE_LAYERS_REQUIRE_CUDA=1; fi
  "$PYTHON" -m pytest -q --durations=10 "${parallel[@]}" "$@"
}

if [ -n "$gpu" ]; then no_gpu='' self_check=(); else
  no_gpu='torch sees no GPU' self_check=(--self-check)
fi
no_nvcc='' no_sanitizer=$no_gpu no_plot=''
if [ -z "${CUDA_HOME:-}" ]; then no_nvcc='there is no nvcc'; fi
if [ -z "$sanitizer" ]; then no_sanitizer=${no_gpu:-there is no compute-sanitizer}; fi
"$PYTHON" -c 'import matplotlib' 2>/dev/null ||
  no_plot="there is no matplotlib; later: python -m benchmarks.gpu_report --plot FOLDER"
sanitize=("$sanitizer" --error-exitcode 1 --print-limit 20)

step build '' "$PYTHON" setup.py build_ext --inplace
step tests '' tests tests/test_*.py
step host '' tests tests/cpu_kernels tests/cuda_host
step compile "$no_nvcc" bash benchmarks/cuda/run.sh "$kernels" none
step check "$no_gpu" "$kernels/bench_kernels" check
step memcheck "$no_sanitizer" "${sanitize[@]}" --tool memcheck "$kernels/bench_kernels" variants
step racecheck "$no_sanitizer" "${sanitize[@]}" --tool racecheck "$kernels/bench_kernels" variants
arguments=(--out "$out" "${peer[@]}" "${self_check[@]}")
step training '' "$PYTHON" -m benchmarks.gpu_training "${arguments[@]}"
step benchmark '' "$PYTHON" -m benchmarks.gpu "${arguments[@]}" "${quick[@]}"
step plot "$no_plot" "$PYTHON" -m benchmarks.gpu_report --plot "$out"
if [ -n "$no_gpu" ]; then
  for name in training benchmark; do
    if wanted "$name"; then say "NOT RUN: $name on a GPU, $no_gpu; tiny shapes ran on the CPU"; fi
  done
fi
exit $((failures > 0))
