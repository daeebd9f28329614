# SPDX-License-Identifier: BSD-3-Clause
"""Loads the compiled kernels, once; remembers why not.

The package may hold two libraries, ``lib/upfirdn2d_cpu-<version>.so`` and
``lib/upfirdn2d_cuda-<version>.so``. Loading a file registers nothing: it is asked first what it
was built for. If that fits, its kernels join the operators under the dispatch key of their
device. If it does not, or there is no file, the native kernels serve as they did before. An
operator that a library does not list keeps its native kernel, and the others get theirs.

The CPU library is loaded when this module is imported. The CUDA library is loaded by the first
CUDA tensor: until then a kernel in Python stands in the place of the compiled ones, which
decides, leaves, and passes the call on. So importing never initialises CUDA, no call pays for
the question, and compiled graphs, which call the operators directly, get the answer too.

``RESAMPLE_LAYERS_BACKEND=native`` keeps both away; ``extension`` makes their absence an error.
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import shlex
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..version import __version__
from . import library_file
from .op import OPS
from .owner import NAMESPACE, OWNER

FOLDER = Path(__file__).resolve().parent.parent / "lib"
VARIABLE = "RESAMPLE_LAYERS_BACKEND"
COMPILERS = ("c++", "g++", "clang++")  # those that the build looks for
GPUS = "/dev/nvidia[0-9]*"  # files that NVIDIA's driver makes on Linux, one for each GPU
SCHEMAS = {name: op.schema for name, op in OPS.items()}
SITE = FOLDER.parents[1]  # the clone, or the folder of an installation
IS_CLONE = (SITE / "build_backend" / "toolchain.py").exists()
# Pip takes a wheel that it built earlier, perhaps without kernels, from its cache: not so here
REBUILD = (
    f"pip install --editable {shlex.quote(str(SITE))}"
    if IS_CLONE
    else "pip install --no-cache-dir --no-deps --force-reinstall . in a clone of resample_layers"
)


class Choice(NamedTuple):
    """What serves a device."""

    backend: str  # "extension" or "native"
    reason: str


class Device(NamedTuple):
    """A CUDA device that this process sees."""

    name: str
    capability: tuple[int, int]


class UnavailableError(Exception):
    """Why a library cannot serve, and what helps."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}. What helps: {cure}.")


def library_path(device: str) -> Path:
    """Where the library for "cpu" or "cuda" lies, if there is one."""
    return FOLDER / f"upfirdn2d_{device}-{__version__}.so"


def open_library(device: str) -> tuple[ctypes.CDLL, dict[str, str]]:
    """The library and what it says of itself; nothing is registered.

    Raises:
        UnavailableError: if there is none, or it does not belong to this package and torch.
    """
    path = library_path(device)
    if is_absent(path):
        raise _absence(device)
    fault = library_file.find_fault(path)
    if fault is not None:
        raise UnavailableError(f"{path} is not loaded: {fault}", REBUILD)
    newer = f"update torch, or {REBUILD}"
    try:
        torch.ops.load_library(str(path))
        library = ctypes.CDLL(str(path))  # the same one: a file is loaded once
    except OSError as error:
        cause = str(error.__cause__ or error).removeprefix(f"{path}: ")
        if re.search(r"undefined symbol: (aoti_)?torch_", cause):
            raise UnavailableError(
                f"{path} was built for a torch newer than {torch.__version__} ({cause})", newer
            ) from None
        raise UnavailableError(f"{path} does not load ({cause})", REBUILD) from None
    try:
        info = _describe(library)
    except AttributeError:
        raise UnavailableError(f"{path} is not a library of resample_layers", REBUILD) from None
    if info.get("version") != __version__:
        raise UnavailableError(f"{path} is of version {info.get('version')}", REBUILD)
    if info.get("key") != device.upper():
        raise UnavailableError(f"{path} holds kernels for the key {info.get('key')}", REBUILD)
    name = _find_other_schema(info)
    if name is not None:
        raise UnavailableError(f"{path} was built from other sources: {name} differs", REBUILD)
    if _numbers(info["target"]) > _numbers(torch.__version__):
        raise UnavailableError(
            f"{path} was built for torch {info['target']}, this is {torch.__version__}", newer
        )
    return library, info


def is_absent(path: Path) -> bool:
    """Whether no file, readable or not, and no link has this name."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _absence(device: str) -> UnavailableError:
    """There is no library: why, and what would bring one."""
    compiler = "a C++ compiler" if device == "cpu" else "nvcc"
    if finds_compiler(device):
        cure = REBUILD
    elif sys.platform == "linux":
        cure = f"install {compiler}, then {REBUILD}"
    else:
        cure = f"set RESAMPLE_LAYERS_EXTENSION=1, which is tested on Linux only, then {REBUILD}"
    if device == "cuda" and torch.version.cuda is None:
        cure = f"install a torch that is built for NVIDIA's CUDA, then {cure}"
    reason = f"there are no {device.upper()} kernels here: {library_path(device)} does not exist"
    other = find_hidden(device)
    if other is not None:
        reason += f", and {SITE} hides the installation in {other}, which has kernels"
        cure = f"start Python in another folder than {SITE}, or {cure}"
    return UnavailableError(reason, cure)


def finds_compiler(device: str) -> bool:
    """Whether a build on this machine would compile kernels for a device; nothing is started."""
    if sys.platform != "linux":  # there the build compiles only where it is told to
        return False
    if device == "cuda":
        return shutil.which("nvcc") is not None or bool(os.environ.get("CUDA_HOME"))
    named = os.environ.get("CXX", "").split()[:1]
    return any(shutil.which(name) for name in named or COMPILERS)


def find_hidden(device: str) -> str | None:
    """The folder of another installation, with kernels, that Python would find without this one."""
    package = __name__.split(".")[0]
    if (SITE / package) != FOLDER.parent:  # a copy inside another package hides nothing
        return None
    library = os.path.join(package, "lib", library_path(device).name)
    for folder in sys.path:
        if isinstance(folder, str) and os.path.isfile(os.path.join(folder, library)):
            return os.path.abspath(folder)
    return None


def finds_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA's: torch sees one, or the driver has made its file.

    A torch for the CPU sees none, nor does one from which CUDA_VISIBLE_DEVICES hides them.
    """
    is_seen = torch.version.cuda is not None and torch.cuda.is_available()
    return is_seen or bool(glob.glob(GPUS))


def _find_other_schema(info: dict[str, str]) -> str | None:
    """An operator that a library lists and that has another schema here, or that is unknown here.

    A boxed kernel of another schema would crash. Operators that the library does not list are no
    hindrance: they keep their native kernels.
    """
    for name, schema in _listed(info).items():
        if SCHEMAS.get(name) != schema:
            return name
    return None


def _listed(info: dict[str, str]) -> dict[str, str]:
    """The operators of a library and their schemas, among all that it says of itself."""
    return {name: value for name, value in info.items() if value.startswith("(")}


def _say_missing(info: dict[str, str]) -> str:
    """The operators that a library has no kernels for, as the end of a sentence."""
    missing = sorted(set(SCHEMAS) - set(_listed(info)))
    return f"; computed natively: {', '.join(missing)}" if missing else ""


def open_cpu() -> tuple[ctypes.CDLL, str]:
    """The CPU library, fit to be registered, and the vector units that it uses here.

    Raises:
        UnavailableError: if it cannot serve.
        ValueError: if RESAMPLE_LAYERS_CPU names vector units that there are not.
    """
    library, info = open_library("cpu")
    library.resample_layers_cpu_capability.restype = ctypes.c_char_p
    capability: str = library.resample_layers_cpu_capability().decode()
    if capability.startswith("error: "):
        raise ValueError(capability.removeprefix("error: "))
    return library, capability + _say_missing(info)


def open_cuda() -> tuple[ctypes.CDLL, str]:
    """The CUDA library, fit to be registered, and the architectures that it was built for.

    Raises:
        UnavailableError: if it cannot serve.
    """
    if torch.version.cuda is None:
        raise UnavailableError(
            f"this torch, {torch.__version__}, is not built for NVIDIA's CUDA",
            "install a torch that is; there are no compiled kernels for other devices",
        )
    library, info = open_library("cuda")
    problem = misfit(info, driver_version(), visible_devices())
    if problem is not None:
        raise problem
    return library, f"architectures {info['architectures']}{_say_missing(info)}"


def driver_version() -> int:
    """The newest CUDA that the driver serves, as ``1000 * major + 10 * minor``; 0: no driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0
    return version.value


def visible_devices() -> list[Device]:
    """The CUDA devices that torch sees."""
    return [
        Device(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i))
        for i in range(torch.cuda.device_count())
    ]


def misfit(info: dict[str, str], driver: int, devices: Sequence[Device]) -> UnavailableError | None:
    """Why CUDA kernels that were built as ``info`` says cannot run here; None: they can.

    Machine code needs a driver of the toolkit's major version or newer; PTX needs one that is not
    older than the toolkit.
    """
    major, minor = _numbers(info["cuda"])[:2]
    if driver // 1000 < major:
        found = f"serves CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "is missing"
        return UnavailableError(
            f"the kernels were built with CUDA {info['cuda']}, and this machine's driver {found}",
            f"update the driver, or rebuild with an nvcc that the driver serves ({REBUILD})",
        )
    for index, device in enumerate(devices):
        if not covers(
            info["architectures"], device.capability, driver >= 1000 * major + 10 * minor
        ):
            own = ".".join(map(str, device.capability))
            return UnavailableError(
                f"the kernels were built for architectures {info['architectures']}, and "
                f"cuda:{index} ({device.name}) is {own}",
                f"TORCH_CUDA_ARCH_LIST={own} {REBUILD}, or hide that device with "
                "CUDA_VISIBLE_DEVICES",
            )
    return None


def covers(architectures: str, capability: tuple[int, int], ptx_runs: bool) -> bool:
    """Whether code for ``architectures``, such as "8.0;9.0a;12.0+PTX", runs on a device.

    Machine code runs on its own architecture and on newer ones of the same major number; with
    the suffix "a" on its own only. PTX runs on all that are not older.
    """
    for text in architectures.split(";"):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", text)
        if match is None:
            raise ValueError(f"architectures must be like 8.0;9.0a;12.0+PTX, got {architectures!r}")
        built, suffix, ptx = (int(match[1]), int(match[2])), match[3], match[4]
        if built == capability:
            return True
        if built < capability and suffix != "a" and built[0] == capability[0]:
            return True
        if built < capability and not suffix and ptx and ptx_runs:
            return True
    return False


class Deferred:
    """A choice that waits for the first tensor of a device."""

    def __init__(self, device: str, open_it: Callable[[], tuple[ctypes.CDLL, str]]) -> None:
        self.device, self.open_it, self.lock = device, open_it, threading.Lock()
        # The registrations live as long as this object does
        self.stand_in: torch.library.Library | None = torch.library.Library(NAMESPACE, "IMPL")
        for name, op in _operators().items():
            self.stand_in.impl(name, partial(self._call, op), device.upper())
        # When it goes, other threads may be on their way into it: what they hold must not be freed
        self._kept = [torch.library.get_kernel(op, device.upper()) for op in _operators().values()]

    def _call(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.decide()
        return op(*args, **kwargs)  # finds the kernels that are there now

    def decide(self) -> None:
        """Make the choice, if nobody has; warn where it costs speed.

        Raises:
            RuntimeError: at each call, if the extension is forced and cannot serve.
        """
        with self.lock:
            if self.stand_in is None:
                return
            library = None
            if self.device not in choices:
                library, choices[self.device] = _choose(self.open_it)
            backend, reason = choices[self.device]
            if backend == "native" and FORCED == "extension":
                raise RuntimeError(_forced_in_vain(self.device, reason))
            self.stand_in = None  # before others take its place
            if library is not None:
                _register(library)
        if backend == "native":
            warnings.warn(
                f"resample_layers computes natively on {self.device.upper()} devices, which is "
                f"several times slower: {reason}",
                stacklevel=4,
            )


def _operators() -> dict[str, Any]:
    names = [name for each in SCHEMAS for name in (each, f"_{each}")]
    return {name: getattr(torch.ops.resample_layers, name).default for name in names}


def _describe(library: ctypes.CDLL) -> dict[str, str]:
    library.resample_layers_describe.restype = ctypes.c_char_p
    text: str = library.resample_layers_describe().decode()
    return dict(line.split("=", 1) for line in text.splitlines())


def _register(library: ctypes.CDLL) -> None:
    library.resample_layers_register.restype = ctypes.c_char_p
    problem = library.resample_layers_register()
    if problem is not None:  # not for lack of anything: all that was checked
        raise RuntimeError(f"registering the compiled kernels failed: {problem.decode()}")


def _choose(
    open_it: Callable[[], tuple[ctypes.CDLL, str]],
) -> tuple[ctypes.CDLL | None, Choice]:
    try:
        library, reason = open_it()
    except UnavailableError as error:
        return None, Choice("native", str(error))
    return library, Choice("extension", reason)


def _choose_cpu() -> None:
    library, choice = _choose(open_cpu)
    if library is not None:
        _register(library)
    elif FORCED == "extension":
        raise RuntimeError(_forced_in_vain("cpu", choice.reason))
    elif not is_absent(library_path("cpu")) or find_hidden("cpu") or finds_compiler("cpu"):
        warnings.warn(
            "resample_layers computes natively on the CPU, which is several times slower: "
            f"{choice.reason.removesuffix('.')}, or set {VARIABLE}=native to compute natively "
            "without this warning.",
            stacklevel=2,
        )
    choices["cpu"] = choice


def _forced_in_vain(device: str, reason: str) -> str:
    return f"{VARIABLE}=extension asks for compiled {device.upper()} kernels, but {reason}"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 11) of "2.11.0+cu130"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    assert match is not None, version
    return int(match[1]), int(match[2])


FORCED = os.environ.get(VARIABLE, "")
if FORCED not in ("", "native", "extension"):
    raise ValueError(f"{VARIABLE} must be native or extension, or not set, got {FORCED!r}")

choices: dict[str, Choice] = OWNER.choices
"""What serves "cpu" and "cuda"; no "cuda" yet where no CUDA tensor has come."""

deferred: dict[str, Deferred] = OWNER.deferred
"""What waits for the first tensor of "cuda", where torch can have such."""

if "cpu" not in choices:  # else a reload, or another copy: chosen once
    if FORCED == "native":
        choices.update(dict.fromkeys(("cpu", "cuda"), Choice("native", f"{VARIABLE}=native")))
    else:
        _choose_cpu()
elif FORCED not in ("", choices["cpu"].backend):
    raise RuntimeError(
        f"{VARIABLE}={FORCED} came too late: this process computes with "
        f"{choices['cpu'].backend} since resample_layers was first imported; start anew"
    )
can_have_cuda = torch.version.cuda is not None or torch.version.hip is not None
if can_have_cuda and "cuda" not in choices and "cuda" not in deferred:
    deferred["cuda"] = Deferred("cuda", open_cuda)
