# SPDX-License-Identifier: BSD-3-Clause
"""Tests the package on several Pythons, versions of torch and compilers, where users install it.

    python scripts/test_matrix.py [--wheel FILE] [--only ROW ...] [--keep]

Each row of ``ROWS`` is a fresh virtual environment with a Python and a torch. Either the wheel goes
into it, which the first row has built against the newest torch; or a compiler builds the package
there, for the CPU. Then the op's tests of this checkout run on the installed package, with
``RESAMPLE_LAYERS_BACKEND=extension``, so that they fail where the compiled kernels do not serve.
Interpreters are found by name, on the PATH or among pyenv's. A row without its interpreter or its
compiler is ``NOT RUN``; ``RESAMPLE_LAYERS_REQUIRE=python3.13`` makes that an error. A row that
cannot be installed has failed, and the others go on. One environment at a time is on disk, about
6 GB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "test_upfirdn2d.py",
    "test_gradients.py",
    "test_bias_act.py",
    "test_doors.py",
    "test_compile.py",
    "test_transforms.py",
    "test_errors.py",
    "test_layers.py",
    "test_compat.py",
    "test_extension.py",
)
REQUIREMENTS = ("pytest>=8", "hypothesis", "numpy", "scipy")
BUILD_REQUIREMENTS = ("setuptools>=77", "ninja")


class Row(NamedTuple):
    """One kind of installation."""

    name: str
    python: str
    torch: str  # pip's requirement
    why: str
    compiler: str | None = None  # None: the wheel


# A torch for the CPU only, where pip finds that build: for x86-64 the public package index has one
# with CUDA. The report tells which it was
CPU = "torch==2.13.0"
ROWS = (
    Row("newest", "3.13", "torch", "the newest torch, with which the wheel is built"),
    Row("floor", "3.10", "torch==2.11.*", "the oldest Python and torch that the wheel serves"),
    Row("cpu", "3.11", CPU, "a torch for the CPU only, where pip finds it"),
    Row("python3.12", "3.12", CPU, "every Python"),
    Row("python3.14", "3.14", CPU, "every Python"),
    Row("gcc11", "3.11", CPU, "the oldest g++ that compiles torch's headers", "g++-11"),
    Row("gcc12", "3.11", CPU, "another g++", "g++-12"),
    Row("clang", "3.11", CPU, "another compiler", "clang++"),
)


def find_python(version: str) -> str | None:
    """An interpreter that is of this version and starts: pyenv's stand-ins may not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in (shutil.which(f"python{version}"), *map(str, installed)):
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if candidate:
            told = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
            if told.stdout.strip() == version:
                return candidate
    return None


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> None:
    """Run a command; where this process is stopped, all that the command started ends first."""
    print("+", *command, flush=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words, variables = list(map(str, command)), {**kept, **environment}
    with subprocess.Popen(words, cwd=folder, env=variables, start_new_session=True) as process:
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        raise subprocess.CalledProcessError(status, words)


def pip(python: Path, *arguments: str | Path, **environment: str) -> None:
    command = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*command, *arguments, **environment)


def install(python: str, row: Row, environment: Path) -> Path:
    """The interpreter of a new virtual environment with the row's torch."""
    run(python, "-m", "venv", environment)
    inside = environment / "bin" / "python"
    pip(inside, "install", "--upgrade", "pip", *BUILD_REQUIREMENTS, row.torch)
    return inside


def build_wheel(python: Path, folder: Path) -> Path:
    """The wheel, built in an environment that holds the newest torch; for all architectures."""
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or "all"
    pip(python, "wheel", *options, ROOT, TORCH_CUDA_ARCH_LIST=architectures)
    (wheel,) = folder.glob("*.whl")
    return wheel


def compile_wheel(python: Path, folder: Path, compiler: str) -> Path:
    """A wheel with the CPU kernels alone, by this compiler."""
    copied = shutil.copytree(
        ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "dist", "lib")
    )
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    variables = {"CXX": compiler, "RESAMPLE_LAYERS_CUDA": "0", "RESAMPLE_LAYERS_EXTENSION": "1"}
    pip(python, "wheel", *options, copied, **variables)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test(python: Path, wheel: Path, folder: Path) -> str:
    """Run the tests on the installed wheel, from a folder without the checkout's package.

    Returns the version of torch, and for which CUDA it was built.
    """
    pip(python, "install", wheel, *REQUIREMENTS)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", folder / "docs")  # the page that a test of compat runs
    shutil.copy(ROOT / "pyproject.toml", folder)
    names = "torch.__version__, torch.version.cuda, resample_layers.__file__"
    code = f"import resample_layers, torch; print({names}, sep='\\n')"
    version, cuda, place = subprocess.run(
        [python, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    if "site-packages" not in place:
        raise RuntimeError(f"the tests would not run on the installed package, but on {place}")
    run(python, "-m", "resample_layers.info", folder=folder)
    files = [f"tests/{name}" for name in TESTS]
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, folder=folder,
        RESAMPLE_LAYERS_BACKEND="extension")  # fmt: skip
    return f"{version} ({'for the CPU only' if cuda == 'None' else f'with CUDA {cuda}'})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--wheel", type=Path, help="take this one for the rows of the wheel")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="rows to test")
    parser.add_argument("--keep", action="store_true", help="leave the environments on disk")
    arguments = parser.parse_args()
    wheel = arguments.wheel and arguments.wheel.resolve()
    if wheel and not (wheel.is_file() and wheel.suffix == ".whl"):
        parser.error(f"--wheel must be a file that ends in .whl, got {arguments.wheel}")
    required = os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(",")
    work = Path(tempfile.mkdtemp(prefix="test-matrix-"))
    report, failed = [], False
    asked = [row for row in ROWS if row.name in arguments.only]
    wants_wheel = any(row.compiler is None for row in asked)
    # A signal that would end this process at once ends it as an error does: nothing is left on disk
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for row in ROWS:
            # The first row builds the wheel, also where it is not to be tested
            building = row is ROWS[0] and wheel is None and wants_wheel
            if row not in asked and not building:
                continue
            python = find_python(row.python)
            missing = f"python{row.python}" if python is None else None
            if row.compiler is not None and shutil.which(row.compiler) is None:
                missing = row.compiler
            if row in asked and missing:
                report.append(f"NOT RUN: {row.name} ({row.why}), no {missing}")
                failed |= missing in required
            if missing and not building:
                continue
            start = time.monotonic()
            folder = work / row.name
            folder.mkdir()
            by = f", {row.compiler}" if row.compiler else ""
            try:
                if row.compiler is None and wheel is None and not building:
                    raise RuntimeError(f"row {ROWS[0].name} has built no wheel")
                inside = install(python or sys.executable, row, folder / "venv")
                if building:
                    wheel = build_wheel(inside, work)
                    (ROOT / "dist").mkdir(exist_ok=True)
                    shutil.copy(wheel, ROOT / "dist")
                    report.append(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
                if row in asked and not missing:
                    built = compile_wheel(inside, folder, row.compiler) if row.compiler else wheel
                    version = test(inside, built, folder)
                    report.append(
                        f"passed: {row.name}, Python {row.python}, torch {version}{by}, "
                        f"{time.monotonic() - start:.0f} s"
                    )
            except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
                failed = True
                report.append(f"FAILED: {row.name}, Python {row.python}, {row.torch}{by} ({error})")
            finally:
                if not arguments.keep:
                    shutil.rmtree(folder)
    finally:
        if not arguments.keep:
            shutil.rmtree(work)
        signal.signal(signal.SIGTERM, before)
        print("", *report, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
