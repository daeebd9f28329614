# SPDX-License-Identifier: BSD-3-Clause
"""Finds the compilers, and says in one sentence what is wrong with them.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

# What the compiled part is built with, besides setuptools; the bound is pyproject.toml's
BUILD_REQUIREMENTS = ["torch>=2.11", "ninja"]
COMPILERS = ("c++", "g++", "clang++")
OLDEST_COMPILERS = "g++ 11 or clang++ 14"  # tests/test_build.py compiles with both
# Every GPU since Turing. The code of an architecture serves those with the same first number and a
# higher second one: 8.0 serves 8.6 and 8.9. Each takes 2.0 to 2.7 MB of the wheel, and the PTX 2.5
ALL_ARCHITECTURES = "7.5;8.0;9.0;10.0;12.0+PTX"
DEFAULT_ARCHITECTURE = "9.0"  # where no GPU is seen: one, so that compiling takes minutes

NVCC_TEST = """
#include <optional>
__global__ void kernel(float* x) { if constexpr (sizeof(float) == 4) x[threadIdx.x] = 1; }
int main() { kernel<<<1, 32>>>(nullptr); return 0; }
"""


class Cuda(NamedTuple):
    """A CUDA toolkit."""

    home: Path
    version: str  # such as "13.0"
    architectures: tuple[str, ...]  # that its compiler knows, such as "9.0"

    @property
    def nvcc(self) -> Path:
        return self.home / "bin" / "nvcc"

    @property
    def include(self) -> Path:
        return self.home / "include"

    @property
    def flags(self) -> list[str]:
        """A file of a quarter of the size, where every driver that serves this CUDA can read it."""
        return ["--compress-mode=size"] if int(self.version.split(".")[0]) >= 13 else []

    @property
    def library_dir(self) -> Path:
        """Where the static runtime lies."""
        for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
            if (self.home / folder / "libcudart_static.a").exists():
                return self.home / folder
        fail(
            f"{self.home} holds no libcudart_static.a, which the CUDA kernels are linked with",
            "install the complete CUDA toolkit, point CUDA_HOME at one, or build without the CUDA "
            "kernels: RESAMPLE_LAYERS_CUDA=0",
        )


def say(text: str) -> None:
    """A line of the build's log."""
    print(f"resample_layers: {text}", file=sys.stderr, flush=True)


def fail(cause: str, cure: str) -> NoReturn:
    """End the build. These are its last lines: no traceback hides them."""
    raise SystemExit(f"\nresample_layers: the build failed.\n  Cause: {cause}.\n  Cure: {cure}.\n")


def switch(name: str) -> bool | None:
    """An environment variable: True for 1, False for 0, None where it is not set."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        fail(f"{name} must be 0 or 1, or not set, got {value!r}", f"set {name} to 0 or 1")
    return {"": None, "0": False, "1": True}[value]


def words(name: str) -> list[str]:
    """The words of an environment variable, split as a shell does; none where it is not set."""
    value = os.environ.get(name, "")
    try:
        return shlex.split(value)
    except ValueError as error:
        fail(f"{name}={value} cannot be split into words ({error})", f"correct or unset {name}")


# C++


def find_cxx() -> list[str] | None:
    """The command of the C++ compiler; None, with a line in the log that says why, without one.

    Ends the build where a compiler is asked for and there is none. CUDA kernels need one too.
    """
    extension, cuda = switch("RESAMPLE_LAYERS_EXTENSION"), switch("RESAMPLE_LAYERS_CUDA")
    if extension is False and cuda:
        fail(
            "RESAMPLE_LAYERS_CUDA=1 asks for CUDA kernels, and RESAMPLE_LAYERS_EXTENSION=0 for no "
            "compiled kernels",
            "unset one of the two",
        )
    if extension is False:
        say("no kernels are compiled: RESAMPLE_LAYERS_EXTENSION=0")
        return None
    wanted = extension or cuda
    if not wanted and sys.platform != "linux":
        say(
            f"no kernels are compiled: this system is {sys.platform}, and the build is tested on "
            "Linux only; RESAMPLE_LAYERS_EXTENSION=1 tries it all the same"
        )
        return None
    chosen = words("CXX")
    for command in [chosen] if chosen else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    if chosen or wanted:
        asked = "RESAMPLE_LAYERS_CUDA=1 asks for CUDA kernels, and " if cuda else ""
        unset = ", with RESAMPLE_LAYERS_CUDA unset" if cuda else ""
        why = f"CXX={os.environ['CXX']} is not a program" if chosen else "there is no C++ compiler"
        fail(
            asked + why,
            f"install {OLDEST_COMPILERS}, or newer, or name one in CXX, or install without "
            f"compiled kernels: RESAMPLE_LAYERS_EXTENSION=0{unset}",
        )
    say("no kernels are compiled: no C++ compiler was found")
    return None


def check_cxx(cxx: Sequence[str], sources: Sequence[str]) -> None:
    """End the build where the compiler does not understand the sources: it may be too old.

    The compiler reads them without producing code, which takes a second.
    """
    result = _run([*cxx, "-std=c++17", "-fsyntax-only", *sources])
    problem = _find_complaint(result)
    if problem:
        print(result.stderr, file=sys.stderr)
        fail(
            f"the C++ compiler {shlex.join(cxx)} ({_first_line([*cxx, '--version'])}) does not "
            f"compile the kernels ({problem})",
            f"install {OLDEST_COMPILERS}, or newer, and name it in CXX; or install without "
            "compiled kernels: RESAMPLE_LAYERS_EXTENSION=0",
        )


# An older glibc

# The wheels run where torch's do: manylinux_2_28
OLDEST_GLIBC = (2, 28)
# Where glibc 2.28 had what newer ones have in libc.so.6
FORMER_HOMES = {
    r"dl(open|mopen|sym|vsym|close|error|addr1?|info)": "libdl.so.2",
    r"((__)?pthread|sem)_\w+": "libpthread.so.0",
    r"(shm|timer|mq|aio|lio)_\w+": "librt.so.1",
}


def link_with_older_glibc(cxx: Sequence[str], folder: Path) -> list[str]:
    """Flags of the linker that make a library run on glibc 2.28, whatever this system has.

    A linker binds each symbol to its newest version, and glibc keeps the older versions for
    programs that were linked long ago. So ``folder`` gets libraries without code that have glibc's
    names and offer what glibc 2.28 offered; the linker meets them before this system's. They are
    made from what this system's glibc says of itself. Elsewhere than on glibc there are no flags.
    A function that is newer than 2.28 is not replaced: tests/test_build.py and auditwheel find it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libraries = []
    for library, versions in _symbols_of_older_glibc(cxx).items():
        code = "".join(
            f".globl {name}\n.type {name}, %{kind}\n{name}:\n"
            for symbols in versions.values()
            for name, kind in symbols.items()
        )
        nodes = "".join(
            f"GLIBC_{version} {{ {'; '.join(symbols)}; }};\n"
            for version, symbols in versions.items()
        )
        source, script, path = folder / "glibc.s", folder / "glibc.map", folder / library
        source.write_text(code)
        script.write_text(nodes)
        flags = ["-shared", "-nostdlib", f"-Wl,-soname,{library},--version-script,{script}"]
        made = _run([*cxx, *flags, str(source), "-o", str(path)])
        if made.returncode != 0:
            fail(
                "the libraries that stand for an older glibc cannot be linked "
                f"({_find_complaint(made)})",
                "name another compiler in CXX, or install without compiled kernels: "
                "RESAMPLE_LAYERS_EXTENSION=0",
            )
        libraries.append(str(path))
    return ["-Wl,--as-needed", *libraries, "-Wl,--no-as-needed"] if libraries else []


def _symbols_of_older_glibc(cxx: Sequence[str]) -> dict[str, dict[str, dict[str, str]]]:
    """For each library of glibc 2.28 and each version there: symbols, and their kinds."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    nm = _run([*cxx, "-print-prog-name=nm"]).stdout.strip()
    for library in ("libc.so.6", "libm.so.6"):
        path = _run([*cxx, f"-print-file-name={library}"]).stdout.strip()
        if not os.path.isabs(path) or shutil.which(nm) is None:
            continue
        told = _run([nm, "--dynamic", "--defined-only", "--with-symbol-versions", path]).stdout
        newest: dict[str, tuple[str, str]] = {}
        for kind, name, version in re.findall(r" (\w) (\w+)@@?GLIBC_([\d.]+)$", told, re.MULTILINE):
            before = newest.get(name, ("", "0"))[1]
            if _number(before) < _number(version) <= OLDEST_GLIBC:
                newest[name] = ("function" if kind in "TWi" else "object", version)
        for name, (kind, version) in newest.items():
            homes = [home for names, home in FORMER_HOMES.items() if re.fullmatch(names, name)]
            of_home = found.setdefault(homes[0] if homes else library, {})
            of_home.setdefault(version, {})[name] = kind
    return found


# CUDA


def find_cuda() -> Cuda | None:
    """The CUDA toolkit, None without one.

    ``CUDA_HOME`` or ``CUDA_PATH`` where set, else the toolkit of ``nvcc`` on the PATH. That may
    be a script that starts the real one, elsewhere: so the compiler itself is asked.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        named = os.environ.get(variable, "")
        if named and not (Path(named) / "bin" / "nvcc").exists():
            fail(
                f"{variable}={named} holds no bin/nvcc",
                f"point {variable} at a CUDA toolkit or unset it, or build without the CUDA "
                "kernels: RESAMPLE_LAYERS_CUDA=0",
            )
        if named:
            return _toolkit(Path(named))
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    steps = _run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]).stderr
    top = re.search(r"^#\$ TOP=(.*)$", steps, re.MULTILINE)
    home = Path(top[1].strip()) if top else Path(nvcc).resolve().parent.parent
    return _toolkit(home.resolve())


def _toolkit(home: Path) -> Cuda:
    nvcc = str(home / "bin" / "nvcc")
    release = re.search(r"release (\d+\.\d+)", _run([nvcc, "--version"]).stdout)
    known = re.findall(r"sm_(\d+)(\d)\b", _run([nvcc, "--list-gpu-code"]).stdout)
    if release is None or not known:
        fail(
            f"{nvcc} does not tell {'its version' if release is None else 'its architectures'}",
            "point CUDA_HOME at a working CUDA toolkit, or build without the CUDA kernels: "
            "RESAMPLE_LAYERS_CUDA=0",
        )
    return Cuda(home, release[1], tuple(f"{major}.{minor}" for major, minor in known))


def choose_architectures(cuda: Cuda) -> list[str]:
    """What ``TORCH_CUDA_ARCH_LIST`` names, checked; where it is not set, those of the GPUs here.

    The word ``all`` stands for all that a wheel is made for and that this toolkit knows.
    """
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip("; ")
    if named == "all":
        return _known_of(cuda, ALL_ARCHITECTURES.split(";"))
    if not named:
        return _known_of(cuda, find_architectures()) or _known_of(cuda, [DEFAULT_ARCHITECTURE])
    chosen = re.split(r"[;\s]+", named)
    for text in chosen:
        match = re.fullmatch(r"(\d+\.\d)[af]?(\+PTX)?", text)
        if match is None:
            fail(
                f"TORCH_CUDA_ARCH_LIST={named} names {text}, which is no architecture",
                f'set it to all, or to numbers such as "{ALL_ARCHITECTURES}"',
            )
        if match[1] not in cuda.architectures:
            fail(
                f"TORCH_CUDA_ARCH_LIST={named} names {text}, and {cuda.nvcc} of CUDA "
                f"{cuda.version} does not know it",
                f"choose among {';'.join(cuda.architectures)}, or point CUDA_HOME at another CUDA",
            )
    return chosen


def find_architectures() -> list[str]:
    """Those of the GPUs that ``nvidia-smi`` lists, such as ["8.6", "9.0"]; [] without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    told = _run([program, "--query-gpu=compute_cap", "--format=csv,noheader"]).stdout
    return sorted(set(re.findall(r"^\d+\.\d$", told, re.MULTILINE)), key=_number)


def _known_of(cuda: Cuda, wanted: Sequence[str]) -> list[str]:
    """Those that the toolkit knows; for newer ones PTX of the newest that it knows."""
    chosen = [text for text in wanted if text.removesuffix("+PTX") in cuda.architectures]
    newest = max(cuda.architectures, key=_number)
    if any(_number(text) > _number(newest) for text in wanted):
        chosen = [*(text for text in chosen if text != newest), f"{newest}+PTX"]
    return chosen


def _number(architecture: str) -> tuple[int, ...]:
    """(12, 0) of "12.0+PTX"."""
    return tuple(map(int, architecture.removesuffix("+PTX").split(".")))


def code_flags(architectures: Sequence[str]) -> list[str]:
    """Flags of nvcc for architectures such as 9.0 (machine code) and 12.0+PTX (that and PTX)."""
    flags = []
    for text in architectures:
        number = text.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if text.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def check_nvcc(cuda: Cuda, architectures: Sequence[str]) -> None:
    """End the build where nvcc, with its host compiler, does not compile a line of CUDA."""
    host = os.environ.get("CC")  # torch passes it on to nvcc
    command = [str(cuda.nvcc), "-std=c++17", *(["-ccbin", host] if host else [])]
    problem = _try([*command, *code_flags(architectures[:1])], "test.cu", NVCC_TEST)
    if problem:
        fail(
            f"{cuda.nvcc} of CUDA {cuda.version} does not compile a test ({problem})",
            "name a host compiler that this CUDA supports in CC, point CUDA_HOME at another CUDA, "
            "or build without the CUDA kernels: RESAMPLE_LAYERS_CUDA=0",
        )


# Programs


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _first_line(command: Sequence[str]) -> str:
    return (_run(command).stdout.splitlines() or ["no version told"])[0]


def _try(command: Sequence[str], name: str, source: str) -> str:
    """Compile a file; the compiler's first complaint, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(source)
        result = _run([*command, "-c", str(path), "-o", str(path.with_suffix(".o"))])
    return _find_complaint(result).replace(folder + "/", "")


def _find_complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The first line in which a compiler that failed tells of an error; nothing if it did not."""
    if result.returncode == 0:
        return ""
    lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {result.returncode}"])[0]
