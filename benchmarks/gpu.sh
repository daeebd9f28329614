#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Everything that only a GPU can show, in one command:
#
#   bash benchmarks/gpu.sh [--stylegan3 CHECKOUT] [--out FOLDER] [--only STEP,STEP...] [--quick]
#                          [--minutes MINUTES]
#
# Steps, in this order, that of their value; the outcome of each is a line here and in
# FOLDER/steps.txt, its output is in FOLDER/logs.txt. A failure does not stop those after it; the
# exit status is 1 after any.
#
#   build       the libraries, in place, for this machine's GPU
#   compile     the kernels without torch, for check, memcheck and racecheck
#   check       every variant against float64
#   tests_cuda  tests/test_cuda.py, test_upfirdn2d.py and test_bias_act.py, one after the other
#   racecheck   every variant under compute-sanitizer, for shared memory: one shape for each
#   benchmark   gpu.jsonl
#   training    a training step of the StyleGAN2 example, without and with CUDA graphs, and NVIDIA's
#               own: training.json, profile.txt
#   half        the same in float16: training-float16.json, profile-float16.txt
#   tune        rows of the table beside their candidates (benchmarks/cuda/tuning_rows.inc), for
#               channels_last and filters of one axis
#   tests_most  tests of compile, export, transforms, gradients and layers; in parallel with
#               pytest-xdist, as are the next two
#   tests       the rest of tests/test_*.py
#   memcheck    every variant under compute-sanitizer, over more shapes than racecheck
#   native      the compiled kernels beside native and torch.compile of native: native.jsonl
#   plot        gpu.svg
#   host        what compiles for minutes and needs no GPU: tests/cpu_kernels and tests/cuda_host
#
# NVIDIA's ops, which are compiled for a minute, are compiled in the background while the steps
# before the benchmark run. Tests run with RESAMPLE_LAYERS_REQUIRE_CUDA=1. All steps together take at most MINUTES (9.5), and
# each has a limit of its own: one that no longer fits is NOT RUN, one that lasts longer is
# interrupted and FAILED. Where nothing limits a command: --minutes 60.
#
# FOLDER is $OUT, or runs/gpu. CHECKOUT is NVIDIA's stylegan3, to
# compare with. PYTHON names the Python with torch; MAX_JOBS bounds compilers and test processes;
# PYTEST_ADDOPTS goes to pytest. Without a GPU each step does what it can (builds, tests on the CPU,
# tiny benchmarks) and says NOT RUN of the rest. benchmarks/NOTES.md says how long the steps take.
# Into RESULTS.md:
#
#   python -m benchmarks.gpu_report FOLDER...
set -uo pipefail
cd "$(dirname "$0")/.."
here=$PWD out=${OUT:-runs/gpu} stylegan3='' only='' minutes=9.5 quick=() told=''
names=' build compile check tests_cuda racecheck benchmark training half tune tests_most tests memcheck native plot host '
while [ $# -gt 0 ]; do
  case $1 in
    --stylegan3 | --out | --only | --minutes)
      [ $# -gt 1 ] || { echo "$1 wants a value; the head of $0 names all" >&2; exit 2; } ;;
  esac
  case $1 in # told: no folders of this machine
    --stylegan3) stylegan3=$2 told+=" $1 CHECKOUT" && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --only) only=,$2, told+=" $1 $2" && shift 2 ;;
    --minutes) minutes=$2 told+=" $1 $2" && shift 2 ;;
    --quick) quick=(--quick) told+=" $1" && shift ;;
    *) echo "unknown argument $1; the head of $0 names all" >&2 && exit 2 ;;
  esac
done
for name in ${only//,/ }; do
  [[ $names == *" $name "* ]] || { echo "no step $name; there are:$names" >&2; exit 2; }
done
budget=$(awk -v m="$minutes" 'BEGIN { if (m !~ /^[0-9]+([.][0-9]+)?$/) exit 1; print int(60 * m) }') ||
  { echo "--minutes $minutes is no number" >&2; exit 2; }
mkdir -p "$out"
out=$(realpath "$out")
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=$here/.venv/bin/python; fi
fi
"$PYTHON" -c 'import torch' || { echo "no torch in $PYTHON; PYTHON names another" >&2; exit 2; }
peer=()
if [ -n "$stylegan3" ]; then
  # An older repository of NVIDIA's has the ops too, but not this file
  [ -d "$stylegan3/torch_utils/ops" ] && [ -f "$stylegan3/training/networks_stylegan2.py" ] ||
    { echo "no stylegan3 in $stylegan3" >&2; exit 2; }
  peer=(--stylegan3 "$(realpath "$stylegan3")")
fi

# What there is. The toolkit behind a wrapped nvcc; one architecture: that of the first GPU
export PYTHONUNBUFFERED=1
jobs=${MAX_JOBS:-$(nproc)}
export MAX_JOBS=$jobs
gpu=$("$PYTHON" -c 'import torch; print(*torch.cuda.get_device_capability(), sep=".")' 2>/dev/null)
gpu_name='no GPU'
if [ -n "$gpu" ]; then
  gpu_name=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())')
fi
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

# step NAME LEAST MOST REASON COMMAND...: run it for MOST seconds at most, unless REASON says why
# not or fewer than LEAST are left. COMMAND runs in a subshell and calls timed, or is run by it
step() {
  local name=$1 least=$2 most=$3 reason=$4 begin=$SECONDS status
  local left=$((budget - SECONDS)) log=$out/$name.log
  shift 4
  wanted "$name" || return 0
  if [ -z "$reason" ] && [ "$left" -lt "$least" ]; then
    reason="$left s of $minutes minutes are left, it wants $least"
  fi
  if [ -n "$reason" ]; then
    say "NOT RUN: $name, $reason"
    return 0
  fi
  limit=$((most < left ? most : left))
  if [ "$(type -t "$1")" != function ]; then set -- timed "$@"; fi
  ("$@") >"$log" 2>&1
  status=$?
  if [ "$status" = 0 ]; then
    say "ok: $name, $((SECONDS - begin)) s"
  elif [ "$status" = 124 ] || [ "$status" = 137 ]; then
    say "FAILED: $name, interrupted after $((SECONDS - begin)) s, its limit"
  else
    say "FAILED: $name, exit status $status after $((SECONDS - begin)) s"
  fi
  if [ "$status" != 0 ]; then
    echo "the end of its log:" && tail -n 25 "$log"
    failures=$((failures + 1))
  fi
  # Indented: of the step before
  { grep -hE '^NOT RUN: ' "$log" | sort -u; grep -hE '^[0-9]+ (passed|failed|error)' "$log"; } |
    sed 's/^/  /' | tee -a "$out/steps.txt"
  { echo "==== $name" && cat "$log"; } >>"$out/logs.txt" && rm "$log"
}

timed() { timeout -s INT -k 10 "$limit" "$@"; }

tests() {
  if [ -n "$gpu" ]; then export RESAMPLE_LAYERS_REQUIRE_CUDA=1; fi
  timed "$PYTHON" -m pytest -q -rf --durations=10 "$@"
}

parallel_tests() {
  local parallel=()
  if [ "$jobs" -gt 1 ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then
    # pytest-benchmark warns beside xdist, and a warning is an error in the tests
    parallel=(-n "$((jobs < 8 ? jobs : 8))" --dist loadfile -p no:benchmark)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
  fi
  tests "${parallel[@]}" "$@"
}

# Exit status 0 is not enough: the tool's summary must say so, of calls that were made
sanitize() { # TOOL CALLS SUMMARY
  timed "$sanitizer" --error-exitcode 1 --print-limit 20 --tool "$1" \
    "$kernels/bench_kernels" "$2" || return
  grep -qE "$3" "$out/$1.log" || { echo "no line '$3'"; return 1; }
  checked "$1"
}

checked() { # STEP: its log's line of a nonzero number of calls, none wrong
  grep -qE '^check: [1-9][0-9]* calls, 0 wrong' "$out/$1.log" ||
    { echo "no line of checked calls"; return 1; }
}

check() { timed "$kernels/bench_kernels" check && checked check; }

# The candidates are a build of its own, with more rows
tune() {
  local rows=$here/benchmarks/cuda/tuning_rows.inc folder=$here/build/tune_kernels filter
  if [ ! -x "$folder/bench_kernels" ]; then
    ROWS=$rows timed bash benchmarks/cuda/run.sh "$folder" none || return
  fi
  for filter in 'nhwc smooth t4 ' 'nhwc up2    t4 ' 'nhwc down2  t4 ' line- deep-; do
    timed "$folder/bench_kernels" tune "$filter" || return
  done
}

# NVIDIA's ops are compiled when they are first called; the lock that torch takes makes a step that
# comes too early wait for them
if [ ${#peer[@]} -gt 0 ] && [ -n "$gpu" ] && { wanted benchmark || wanted training || wanted half; }
then
  "$PYTHON" -c 'import sys, torch
from benchmarks.gpu import usable_peer
usable_peer(sys.argv[1], torch.device("cuda"))' "${peer[1]}" >"$out/peers.log" 2>&1 &
  peers=$!
fi
wait_for_peers() {
  if [ -n "${peers:-}" ]; then
    wait "$peers" || true
    { echo "==== NVIDIA's ops" && cat "$out/peers.log"; } >>"$out/logs.txt" && rm "$out/peers.log"
    peers=''
  fi
}

timed_minutes() { # COMMAND...: so many minutes before the limit no further row begins
  timed "$@" --minutes "$(awk -v s="$limit" 'BEGIN { print (s > 90 ? s - 30 : s * 2 / 3) / 60 }')"
}

if [ -n "$gpu" ]; then no_gpu='' self_check=(); else
  no_gpu='torch sees no GPU' self_check=(--self-check)
fi
no_nvcc='' no_sanitizer=$no_gpu no_plot=''
if [ -z "${CUDA_HOME:-}" ]; then no_nvcc='there is no nvcc'; fi
if [ -z "$sanitizer" ]; then no_sanitizer=${no_gpu:-there is no compute-sanitizer}; fi
"$PYTHON" -c 'import matplotlib' 2>/dev/null ||
  no_plot="there is no matplotlib; later: python -m benchmarks.gpu_report --plot FOLDER"

say "gpu: $gpu_name"
say "arguments:$told"
first=(tests/test_cuda.py tests/test_upfirdn2d.py tests/test_bias_act.py)
most=()
for name in compile export transforms gradients layers dimensions doors extension; do
  most+=("tests/test_$name.py")
done
rest=()
for file in tests/test_*.py; do
  [[ " ${first[*]} ${most[*]} " == *" $file "* ]] || rest+=("$file")
done
arguments=(--out "$out" "${peer[@]}" "${self_check[@]}")
module=(timed_minutes "$PYTHON" -m)

step build 20 300 '' "$PYTHON" setup.py build_ext --inplace
step compile 20 180 "$no_nvcc" bash benchmarks/cuda/run.sh "$kernels" none
step check 20 120 "$no_gpu" check
step tests_cuda 30 240 '' tests "${first[@]}"
step racecheck 30 120 "$no_sanitizer" sanitize racecheck races 'RACECHECK SUMMARY: 0 hazards'
wait_for_peers
step benchmark 60 450 '' "${module[@]}" benchmarks.gpu "${arguments[@]}" "${quick[@]}"
step training 60 240 '' "${module[@]}" benchmarks.gpu_training "${arguments[@]}"
step half 60 240 "$no_gpu" "${module[@]}" benchmarks.gpu_training --precision float16 "${arguments[@]}"
step tune 30 240 "${no_gpu:-$no_nvcc}" tune
step tests_most 60 480 '' parallel_tests "${most[@]}"
step tests 60 480 '' parallel_tests "${rest[@]}"
step memcheck 30 240 "$no_sanitizer" sanitize memcheck variants 'ERROR SUMMARY: 0 errors'
step native 45 450 '' "${module[@]}" benchmarks.gpu --parts native "${arguments[@]}" "${quick[@]}"
step plot 10 60 "$no_plot" "$PYTHON" -m benchmarks.gpu_report --plot "$out"
step host 60 900 '' parallel_tests tests/cpu_kernels tests/cuda_host
if [ -n "$no_gpu" ]; then
  for name in benchmark training native; do
    if wanted "$name" && grep -q "^ok: $name," "$out/steps.txt"; then say "NOT RUN: $name on a GPU, $no_gpu; tiny shapes ran on the CPU"; fi
  done
fi
exit $((failures > 0))
