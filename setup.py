# SPDX-License-Identifier: BSD-3-Clause
"""Builds the compiled kernels: two libraries beside the package, no Python module.

What is not here is in pyproject.toml. Switches, all environment variables:

RESAMPLE_LAYERS_EXTENSION  0: no compiled kernels, 1: an error without a C++ compiler; not set:
                           compiled where there is one, on Linux
RESAMPLE_LAYERS_CUDA       0: no CUDA kernels, 1: an error without nvcc or a C++ compiler; not set:
                           compiled where there are both
TORCH_CUDA_ARCH_LIST       architectures, such as "8.6;9.0+PTX", or all: every GPU since Turing;
                           not set: those of the GPUs that nvidia-smi lists, else 9.0
CXX, CXXFLAGS, LDFLAGS     the C++ compiler and flags for it
CUDA_HOME                  the CUDA toolkit; not set: that of nvcc on the PATH
CC                         nvcc's host compiler; not set: nvcc's choice
MAX_JOBS                   compilers at a time

The libraries use the LibTorch stable ABI: whichever torch they are built with, they serve every
torch from 2.11 on, built for the CPU or for CUDA, under every Python.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import setuptools
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))

import toolchain  # noqa: E402
from readme import read_readme  # noqa: E402

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # a new environment may hold an old setuptools
    toolchain.fail(
        f"setuptools {setuptools.__version__} is too old",
        "pip install --upgrade 'setuptools>=77', or drop --no-build-isolation",
    )

VERSION = re.findall(r'__version__ = "(.*)"', (ROOT / "resample_layers/version.py").read_text())[0]

CPU_SOURCES = [
    "csrc/upfirdn2d_ops.cpp",
    "csrc/older_systems.cpp",
    "csrc/cpu/upfirdn2d_cpu.cpp",
    "csrc/cpu/filtered_act_cpu.cpp",
    "csrc/cpu/filtered_act_signals.cpp",
    "csrc/cpu/choose.cpp",
    "csrc/cpu/bias_act_grad.cpp",
    "csrc/cpu/kernels_baseline.cpp",
    "csrc/cpu/kernels_avx2.cpp",
    "csrc/cpu/kernels_avx512.cpp",
]
CUDA_SOURCES = [
    "csrc/upfirdn2d_ops.cpp",
    "csrc/older_systems.cpp",
    "csrc/cuda/upfirdn2d_cuda.cu",
    "csrc/cuda/bias_act_grad.cu",
    "csrc/cuda/filtered_act_cuda.cu",
    "csrc/cuda/filtered_act_float64.cu",
    "csrc/cuda/filtered_act_float32.cu",
    "csrc/cuda/filtered_act_float16.cu",
    "csrc/cuda/filtered_act_bfloat16.cu",
    "csrc/cuda/upfirdn2d_float32.cu",
    "csrc/cuda/upfirdn2d_float16.cu",
    "csrc/cuda/upfirdn2d_bfloat16.cu",
]

MACROS = [
    ("TORCH_TARGET_VERSION", "0x020b000000000000"),  # 2.11: the oldest torch that loads it
    ("TORCH_STABLE_ONLY", None),  # a header outside the stable ABI is an error
    ("RESAMPLE_LAYERS_VERSION", VERSION),
]
CXX_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fvisibility=hidden"]
# The two names must stand among the needed libraries, used or not: both are loaded already, and
# the second leads to libtorch_cuda where torch has one. Nothing is looked up on a disk.
LINK_FLAGS = [
    "-lstdc++",  # before torch's libraries, which export copies of parts of it
    *("-Wl,--no-as-needed", "-ltorch_cpu", "-ltorch", "-Wl,--as-needed"),
    f"-Wl,--version-script={ROOT}/csrc/exports.map",
]

LIBRARIES = ROOT / "resample_layers" / "lib"
COMPILING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
DEVELOPING = {"editable_wheel", "develop", "--inplace", "-i"}


def developing() -> bool:
    """Whether the build is for the source tree, whose kernels lie in LIBRARIES."""
    return not DEVELOPING.isdisjoint(sys.argv)


def remove_libraries(folder: Path, but: Collection[str] = ()) -> None:
    """Remove what an earlier build left, with other switches or of another version."""
    for path in folder.glob("upfirdn2d_*.so"):
        if path.name not in but:
            path.unlink()


def exchange_libraries(built: list[Path]) -> None:
    """Let LIBRARIES hold the libraries of this build and no other: none, if it has made none.

    A build for the source tree calls this when all is compiled and linked, and touches nothing in
    LIBRARIES before. So a build that fails or is interrupted leaves the kernels of the build
    before. What may fail here is the copying, which comes first. Then each library takes its place
    in one step, and a process that has loaded the earlier one keeps that.
    """
    LIBRARIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARIES) as folder:
        copies = [Path(shutil.copy(path, folder)) for path in built]
        remove_libraries(LIBRARIES, but=[copy.name for copy in copies])
        for copy in copies:
            copy.replace(LIBRARIES / copy.name)


def compiled_part() -> dict[str, Any]:
    """The arguments of setup() for the compiled part: none where it is not built."""
    if COMPILING.isdisjoint(sys.argv):
        return {}
    cxx = toolchain.find_cxx()
    if cxx is None:
        toolchain.say("this installation computes natively, in plain torch")
        return {}
    toolchain.check_cxx(cxx, [str(ROOT / name) for name in CPU_SOURCES if "/kernels_" in name])
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        toolchain.fail(
            f"there is a C++ compiler, but torch cannot be imported ({error})",
            "install torch, setuptools and ninja first, or drop --no-build-isolation, or install "
            "without compiled kernels: RESAMPLE_LAYERS_EXTENSION=0",
        )
    # Messages and the libraries name files of the project and of torch, not of this machine
    torch_home = Path(cpp_extension.__file__).parents[2]
    CXX_FLAGS.extend(f"-ffile-prefix-map={folder}/=" for folder in (ROOT, torch_home))
    CXX_FLAGS.extend(toolchain.words("CXXFLAGS"))  # last: they win
    extensions = [
        Extension(
            "resample_layers.lib.upfirdn2d_cpu",
            CPU_SOURCES,
            include_dirs=cpp_extension.include_paths(),
            library_dirs=cpp_extension.library_paths(),
            define_macros=MACROS,
            extra_compile_args={"cxx": CXX_FLAGS},  # type: ignore[arg-type]  # BuildExtension's
            language="c++",
        )
    ]
    cuda = wanted_cuda(cpp_extension)
    if cuda is not None:
        architectures = toolchain.choose_architectures(cuda)
        toolchain.check_nvcc(cuda, architectures)
        toolchain.say(
            f"CUDA kernels: nvcc of CUDA {cuda.version} in {cuda.home}, architectures "
            f"{';'.join(architectures)}; they need a driver that serves CUDA "
            f"{cuda.version.split('.')[0]}.0, whatever the CUDA of torch"
        )
        extensions.append(cuda_extension(cpp_extension, cuda, architectures))
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": build_command(cpp_extension, cxx), "bdist_wheel": Wheel},
    }


def wanted_cuda(cpp_extension: Any) -> toolchain.Cuda | None:
    wanted = toolchain.switch("RESAMPLE_LAYERS_CUDA")
    if wanted is False:
        toolchain.say("no CUDA kernels: RESAMPLE_LAYERS_CUDA=0")
        return None
    cuda = toolchain.find_cuda()
    without = "or build without the CUDA kernels: RESAMPLE_LAYERS_CUDA=0"
    if cpp_extension.IS_HIP_EXTENSION:  # its build would translate the sources to HIP
        if wanted:
            toolchain.fail("the torch to build with is made for ROCm", f"use another, {without}")
        return None
    if cuda is None:
        if wanted:
            toolchain.fail(
                "RESAMPLE_LAYERS_CUDA=1 asks for CUDA kernels, and there is no nvcc",
                f"install the CUDA toolkit, set CUDA_HOME or add nvcc to the PATH, {without}",
            )
        toolchain.say("no CUDA kernels: there is no nvcc on the PATH and no CUDA_HOME")
    return cuda


def cuda_extension(cpp_extension: Any, cuda: toolchain.Cuda, architectures: list[str]) -> Extension:
    cpp_extension.CUDA_HOME = str(cuda.home)  # torch guesses wrong where nvcc is a script
    # Torch refuses an nvcc of another major version than its own CUDA: with reason for libraries
    # that share its runtime. This one has its own, linked statically.
    cpp_extension._check_cuda_version = lambda *args: None
    listed = [
        ("RESAMPLE_LAYERS_CUDA", None),
        ("RESAMPLE_LAYERS_ARCHITECTURES", ";".join(architectures)),
        ("USE_CUDA", None),
    ]
    return Extension(
        "resample_layers.lib.upfirdn2d_cuda",
        CUDA_SOURCES,
        include_dirs=[*cpp_extension.include_paths(), str(cuda.include)],
        library_dirs=[*cpp_extension.library_paths(), str(cuda.library_dir)],
        define_macros=[*MACROS, *listed],
        libraries=["cudart_static", "dl", "rt", "pthread"],
        extra_compile_args={  # type: ignore[arg-type]  # BuildExtension's
            "cxx": CXX_FLAGS,
            "nvcc": [*NVCC_FLAGS, *cuda.flags, *toolchain.code_flags(architectures)],
        },
        language="c++",
    )


def build_command(cpp_extension: Any, cxx: list[str]) -> type:
    import torch

    os.environ["CXX"] = shlex.join(cxx)
    linker = [*cxx, "-shared", *toolchain.words("CXXFLAGS"), *toolchain.words("LDFLAGS")]

    class Build(cpp_extension.BuildExtension):  # type: ignore[misc]
        """Torch's compilation with ninja, of libraries that are no Python modules."""

        def finalize_options(self) -> None:
            super().finalize_options()
            # A lasting place, the same for a wheel and an editable install: only what has
            # changed is compiled
            self.build_temp = str(ROOT / "build" / f"torch-{torch.__version__}")
            self.include_dirs: list[str] = []  # without Python's headers

        def build_extensions(self) -> None:
            remove_libraries(Path(self.build_lib, "resample_layers", "lib"))
            self.compiler.set_library_dirs([])  # Python's
            # Not with the flags that Python was compiled with
            for name, command in {
                "compiler_so": cxx,
                "compiler_so_cxx": cxx,
                "linker_so": linker,
                "linker_so_cxx": linker,
            }.items():
                if name in self.compiler.executables:  # newer setuptools have more of them
                    self.compiler.set_executable(name, command)
            try:
                super().build_extensions()
            except Exception as error:
                toolchain.fail(
                    f"a compiler or the linker failed, its words are above ({error})",
                    "if the compiler is at fault, name another in CXX, such as "
                    f"{toolchain.OLDEST_COMPILERS}, or newer; to build without the CUDA kernels "
                    "set RESAMPLE_LAYERS_CUDA=0, without any RESAMPLE_LAYERS_EXTENSION=0",
                )

        def build_extension(self, extension: Extension) -> None:
            # Both compile upfirdn2d_ops.cpp: each in a folder of its own
            common = self.build_temp
            self.build_temp = str(Path(common, extension.name.rpartition(".")[2]))
            older = toolchain.link_with_older_glibc(cxx, Path(self.build_temp, "glibc"))
            extension.extra_link_args = [*older, *LINK_FLAGS]
            try:
                super().build_extension(extension)
            finally:
                self.build_temp = common

        def copy_extensions_to_source(self) -> None:
            """Setuptools calls this when all are linked, in a build for the source tree."""
            names = [self.get_ext_filename(extension.name) for extension in self.extensions]
            exchange_libraries([Path(self.build_lib, name) for name in names])

        def get_libraries(self, extension: Extension) -> list[str]:
            return list(extension.libraries)  # and not Python's

        def get_ext_filename(self, name: str) -> str:
            return f"{os.path.join(*name.split('.'))}-{VERSION}.so"

    return Build


class Wheel(bdist_wheel):  # type: ignore[misc]
    """One wheel for every Python: there is no Python symbol in it."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


distribution = setup(
    long_description=read_readme(ROOT, VERSION),
    long_description_content_type="text/markdown",
    **compiled_part(),
)
if developing() and not distribution.ext_modules and any(distribution.have_run.values()):
    exchange_libraries([])
