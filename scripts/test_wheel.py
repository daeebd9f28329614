# SPDX-License-Identifier: BSD-3-Clause
"""Builds one wheel against the newest torch, and tests it where users will install it.

    python scripts/test_wheel.py [--wheel FILE] [--only ROW ...] [--keep]

Each row of ``ROWS`` is a Python and a torch: a fresh virtual environment gets both and the wheel,
and runs the op's tests of this checkout on the installed package, with
``RESAMPLE_LAYERS_BACKEND=extension``, so that they fail where the compiled kernels do not serve.
Interpreters are found by name, on the PATH or among pyenv's. A row without its interpreter is
``NOT RUN``; ``RESAMPLE_LAYERS_REQUIRE=python3.13`` makes that an error. One environment at a time
is on disk, about 6 GB.
"""

from __future__ import annotations

import argparse
import os
import shutil
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


ROWS = (
    Row("newest", "3.13", "torch", "the newest torch, with which the wheel is built"),
    Row("floor", "3.11", "torch==2.11.*", "the oldest torch that the wheel promises to serve"),
    Row("cpu", "3.11", "torch==2.13.0", "a torch for the CPU only, where pip finds that build"),
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
    print("+", *command, flush=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(list(map(str, command)), cwd=folder, env={**kept, **environment}, check=True)


def pip(python: Path, *arguments: str | Path, **environment: str) -> None:
    command = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*command, *arguments, **environment)


def build_wheel(python: Path, folder: Path) -> Path:
    """The wheel, built in an environment that holds the newest torch; for all architectures."""
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or "all"
    pip(python, "wheel", *options, ROOT, TORCH_CUDA_ARCH_LIST=architectures)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test(python: Path, wheel: Path, folder: Path) -> str:
    """Run the tests on the installed wheel, from a folder without the checkout's package."""
    pip(python, "install", wheel, *REQUIREMENTS)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = "import resample_layers, torch; print(torch.__version__, resample_layers.__file__)"
    version, place = subprocess.run(
        [python, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=1)
    if "site-packages" not in place:
        raise SystemExit(f"the tests would not run on the installed package, but on {place}")
    run(python, "-m", "resample_layers.info", folder=folder)
    files = [f"tests/{name}" for name in TESTS]
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, folder=folder,
        RESAMPLE_LAYERS_BACKEND="extension")  # fmt: skip
    return version


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="test this one, build none")
    parser.add_argument("--only", nargs="*", metavar="ROW", default=[row.name for row in ROWS])
    parser.add_argument("--keep", action="store_true", help="leave the environments on disk")
    arguments = parser.parse_args()
    wheel = arguments.wheel and arguments.wheel.resolve()
    required = os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(",")
    work = Path(tempfile.mkdtemp(prefix="test-wheel-"))
    report, failed = [], False
    for row in ROWS:
        building = wheel is None  # the first row builds it, also where it is not to be tested
        if row.name not in arguments.only and not building:
            continue
        python = find_python(row.python)
        missing = f"python{row.python}"
        if python is None and not building:
            report.append(f"NOT RUN: wheel on {row.name} ({row.why}), no {missing}")
            failed |= missing in required
            continue
        start = time.monotonic()
        folder = work / row.name
        folder.mkdir()
        environment = folder / "venv"
        run(python or sys.executable, "-m", "venv", environment)
        inside = environment / "bin" / "python"
        pip(inside, "install", "--upgrade", "pip", *BUILD_REQUIREMENTS, row.torch)
        if building:
            wheel = build_wheel(inside, work)
            (ROOT / "dist").mkdir(exist_ok=True)
            shutil.copy(wheel, ROOT / "dist")
            report.append(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        if python is None:
            report.append(f"NOT RUN: wheel on {row.name} ({row.why}), no {missing}")
            failed |= missing in required
        elif row.name in arguments.only:
            try:
                version = test(inside, wheel, folder)
            except subprocess.CalledProcessError as error:
                failed = True
                report.append(f"FAILED: {row.name}, Python {row.python}, {row.torch} ({error})")
            else:
                report.append(
                    f"passed: {row.name}, Python {row.python}, torch {version}, "
                    f"{time.monotonic() - start:.0f} s"
                )
        if not arguments.keep:
            shutil.rmtree(folder)
    if not arguments.keep:
        shutil.rmtree(work)
    print("", *report, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
