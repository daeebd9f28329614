# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels without a GPU: emulated on the host, under sanitizers, against the oracle.

Needs g++; the resource report needs nvcc too. A missing tool is said in a line
``NOT RUN: step, reason``; ``RESAMPLE_LAYERS_REQUIRE=asan,nvcc`` makes it an error.
``RESAMPLE_LAYERS_CUDA_HOST_EXTRA`` is the number of random calls per row and type
beside the edge cases (default 2; the exhaustive sweep uses 200).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CUDA = HERE.parents[1] / "csrc" / "cuda"
FILTERED = sorted(CUDA.glob("filtered_*.cuh"))  # test_filtered_act_host.py has these
SOURCES = sorted(set(CUDA.glob("*.cuh")) - set(FILTERED))
EXTRA = int(os.environ.get("RESAMPLE_LAYERS_CUDA_HOST_EXTRA", "2"))
ORDERS = ("ascending", "descending", "random")


def not_run(step: str, reason: str, tool: str) -> None:
    """Say that a step is left out, or fail where its tool is required."""
    message = f"NOT RUN: {step}, {reason}"
    if tool in os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(","):
        pytest.fail(message)
    # Not through pytest's capture: the line must be seen in any run.
    print(message, file=sys.__stdout__, flush=True)
    pytest.skip(message)


def barriers(sources: list[Path]) -> list[int]:
    """The numbers of all barriers in these sources."""
    numbers = []
    for source in sources:
        numbers += [int(n) for n in re.findall(r"\bBARRIER(?:_ANY)?\((\d+)", source.read_text())]
    return numbers


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels built for the host, with sanitizers where the compiler has them."""
    return build_emulator(tmp_path_factory, "cuda_host", "Makefile")


def build_emulator(tmp_path_factory: pytest.TempPathFactory, name: str, makefile: str) -> Path:
    """Build the emulator `name` in a folder of its own, once for all processes of a test run."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None or shutil.which("make") is None:
        not_run("CUDA kernels on the host", f"{compiler} or make is missing", "asan")
    named = os.environ.get("RESAMPLE_LAYERS_CUDA_HOST_BUILD")
    # Processes of one test run share what the first of them builds
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    build = (Path(named) if named else base.parent if parallel else base) / name

    build.mkdir(parents=True, exist_ok=True)
    lock = open(build / "lock", "w")  # noqa: SIM115  # held until the emulator is built
    fcntl.flock(lock, fcntl.LOCK_EX)

    # Does this compiler link the sanitizers?
    probe = build / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    flags = ["-fsanitize=address,undefined"]
    linked = subprocess.run(
        [compiler, *flags, str(probe), "-o", str(build / "probe")], capture_output=True, check=False
    )
    sanitize = "-fsanitize=address,undefined -fno-sanitize-recover=all"
    if linked.returncode != 0:
        message = "NOT RUN: sanitizers on the CUDA kernels, g++ cannot link them"
        if "asan" in os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(","):
            pytest.fail(message)
        print(message, file=sys.__stdout__, flush=True)
        sanitize = ""
    made = subprocess.run(
        [
            *("make", "-f", makefile, "-j2"),
            *(f"BUILD={build}", f"CXX={compiler}", f"SANITIZE={sanitize}"),
        ],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    lock.close()
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    return build / name


def run(emulator: Path, *arguments: str) -> None:
    """One command of the emulator; its output is the failure's message."""
    result = subprocess.run([emulator, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]


def test_conversions(emulator: Path) -> None:
    """The stand-ins for float16 and bfloat16 round as the hardware does."""
    run(emulator, "conversions")


def test_plans(emulator: Path) -> None:
    """The table serves every StyleGAN2 layer, within its bounds."""
    run(emulator, "plans")


@pytest.mark.parametrize("order", ORDERS)
def test_every_row(emulator: Path, order: str) -> None:
    """Every variant equals the oracle about every tile edge, in each order of threads."""
    run(emulator, "sweep", "0", "999", str(EXTRA), order)


@pytest.mark.parametrize("order", ORDERS)
def test_generic(emulator: Path, order: str) -> None:
    """The generic kernels and the kernel's gradient equal the oracle."""
    run(emulator, "generic", str(50 * max(EXTRA, 1)), order)


@pytest.mark.parametrize("order", ORDERS)
def test_one_axis(emulator: Path, order: str) -> None:
    """Filters of one axis, in both layouts, run on rows of the table and equal the oracle."""
    run(emulator, "axes", str(20 * max(EXTRA, 1)), order)


@pytest.mark.parametrize("order", ORDERS)
def test_taps_that_are_not_finite(emulator: Path, order: str) -> None:
    """NaN and infinity spread over existing samples only; a clamp is at most finite."""
    run(emulator, "taps", order)


def test_large_kernel_gradients(emulator: Path) -> None:
    """The kernel's gradient equals the oracle where 32 bits or a grid's axis would end."""
    run(emulator, "large")


@pytest.mark.parametrize("order", ORDERS)
def test_pointwise(emulator: Path, order: str) -> None:
    """One tap at one size: the pointwise kernel equals the oracle about every edge."""
    run(emulator, "pointwise", str(20 * max(EXTRA, 1)), order)


@pytest.mark.parametrize("order", ORDERS)
def test_activation_gradient(emulator: Path, order: str) -> None:
    """The activation's gradient and each of its sums equal the formula about every edge."""
    run(emulator, "activation", str(10 * max(EXTRA, 1)), order)


def test_barriers_are_numbered_once() -> None:
    """Each barrier can be removed alone, and no kernel synchronises otherwise."""
    numbers = barriers(SOURCES + FILTERED)
    assert numbers
    assert len(numbers) == len(set(numbers))
    for source in CUDA.glob("*.cuh"):
        code = re.sub(r"//.*", "", source.read_text())
        code = re.sub(r"#define BARRIER.*__syncthreads.*", "", code)
        assert "__sync" not in code, source.name
        assert "<<<" not in code, source.name
        assert not re.search(r"\basm\b", code), source.name


@pytest.mark.parametrize("number", barriers(SOURCES))
def test_every_barrier_is_needed(emulator: Path, number: int) -> None:
    """Without this barrier, every variant that has it goes wrong."""
    run(emulator, "barrier", str(number))


def test_no_spills() -> None:
    """No specialised kernel spills registers or keeps an array in local memory.

    Of one dtype each; ``make resources`` compiles all.
    """
    sys.path.insert(0, str(HERE))
    try:
        import check_resources
    finally:
        sys.path.remove(str(HERE))
    nvcc = check_resources.find_nvcc()
    if nvcc is None:
        not_run("resource report of the CUDA kernels", "nvcc is missing", "nvcc")
    assert nvcc is not None
    kernels, bad = check_resources.check(nvcc, "sm_90")
    assert kernels
    assert not bad
