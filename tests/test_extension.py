# SPDX-License-Identifier: BSD-3-Clause
"""The compiled libraries: found or not, fit or not, the package computes and says why.

Most tests start a process with a copy of the package, whose libraries are what the test needs.
"""

import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

import resample_layers
from resample_layers.info import VARIABLES
from resample_layers.ops import extension, native

from .tools import require

OPS = torch.ops.resample_layers
PACKAGE = Path(resample_layers.__file__).parent
CPU_LIBRARY = extension.library_path("cpu")
CALL = """
import torch
from resample_layers.ops import upfirdn2d
assert upfirdn2d(torch.ones(1, 1, 3, 4), torch.ones(2, 2)).sum() == 24
"""
CHOICES = CALL + "from resample_layers.ops import extension; print(extension.choices)"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with the package in it, without libraries."""
    ignore = shutil.ignore_patterns("lib", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "resample_layers", ignore=ignore)
    (tmp_path / "resample_layers" / "lib").mkdir()
    return tmp_path


def run(folder: Path, *arguments: str, check: bool = True, **environment: str):
    """A process that sees the package in ``folder``, and none of our variables but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RESAMPLE_LAYERS_") and name not in VARIABLES
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=check,
    )


def last_line(result) -> str:
    assert result.returncode != 0
    return result.stderr.strip().splitlines()[-1]


def library_of(folder: Path, device: str = "cpu") -> Path:
    return folder / "resample_layers" / "lib" / extension.library_path(device).name


def compile_library(path: Path, source: str) -> None:
    compiler = require("cc")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)


def built(device: str = "cpu") -> Path:
    path = extension.library_path(device)
    require(f"{device.upper()} library", found=path.exists())
    return path


# What is there, what is asked for


def test_without_libraries_all_is_native_and_quiet(copy):
    result = run(copy, "-W", "error", "-c", CHOICES)
    assert "backend='native'" in result.stdout
    assert "this installation holds no CPU kernels" in result.stdout
    assert result.stderr == ""


def test_native_can_be_forced(copy):
    shutil.copy(built(), library_of(copy))
    code = CHOICES + "; print(torch.ops.loaded_libraries)"
    result = run(copy, "-W", "error", "-c", code, RESAMPLE_LAYERS_BACKEND="native")
    assert result.stdout.count("'RESAMPLE_LAYERS_BACKEND=native'") == 2  # cpu and cuda
    assert result.stdout.splitlines()[-1] == "set()"


def test_extension_can_be_forced_and_import_loads_no_cuda(copy):
    for device in ("cpu", "cuda"):
        if extension.library_path(device).exists():
            shutil.copy(extension.library_path(device), library_of(copy, device))
    built()
    code = CHOICES + "; print(torch.ops.loaded_libraries, torch.cuda.is_initialized())"
    result = run(copy, "-W", "error", "-c", code, RESAMPLE_LAYERS_BACKEND="extension")
    assert "'cpu': Choice(backend='extension'" in result.stdout
    assert "upfirdn2d_cpu-" in result.stdout
    assert "upfirdn2d_cuda-" not in result.stdout
    assert result.stdout.strip().endswith("False")


def test_unknown_backends_are_an_error(copy):
    result = run(copy, "-c", CALL, check=False, RESAMPLE_LAYERS_BACKEND="cuda")
    assert last_line(result) == (
        "ValueError: RESAMPLE_LAYERS_BACKEND must be native or extension, or not set, got 'cuda'"
    )


def test_unknown_vector_units_are_an_error(copy):
    shutil.copy(built(), library_of(copy))
    result = run(copy, "-c", CALL, check=False, RESAMPLE_LAYERS_CPU="mmx")
    assert last_line(result).startswith("ValueError: RESAMPLE_LAYERS_CPU")
    assert "mmx" in last_line(result)


# Files that are there but do not fit


def test_a_file_that_does_not_fit_is_told_everywhere(copy):
    """Works natively; warns once, at import; tells in the report; is an error where forced."""
    library_of(copy).write_bytes(b"no library")
    reason = r"upfirdn2d_cpu-.*\.so does not load \(.*(invalid ELF header|too short)"
    result = run(copy, "-W", "always", "-c", CHOICES)
    assert "'cpu': Choice(backend='native'" in result.stdout
    assert re.search(reason, result.stdout)
    assert result.stderr.count("UserWarning") == 1
    assert "computes natively on the CPU" in result.stderr
    assert re.search(reason, result.stderr)
    assert "What helps: reinstall resample_layers" in result.stderr
    assert re.search(reason, run(copy, "-m", "resample_layers.info").stdout)

    result = run(copy, "-c", CALL, check=False, RESAMPLE_LAYERS_BACKEND="extension")
    told = "RuntimeError: RESAMPLE_LAYERS_BACKEND=extension asks for compiled CPU kernels, but "
    assert last_line(result).startswith(told)
    assert re.search(reason, last_line(result))


@pytest.fixture
def other_library(tmp_path, monkeypatch):
    """Where this process now looks for the CPU library."""
    monkeypatch.setattr(extension, "FOLDER", tmp_path)
    return extension.library_path("cpu")


def test_a_library_of_something_else(other_library):
    compile_library(other_library, "int something;")
    with pytest.raises(extension.UnavailableError, match="is not a library of resample_layers"):
        extension.open_cpu()


def test_a_library_that_needs_a_newer_torch(other_library):
    source = "int aoti_torch_of_tomorrow(void); int f(void) { return aoti_torch_of_tomorrow(); }"
    compile_library(other_library, source)
    reason = r"was built for a torch newer than .*undefined symbol: aoti_torch_of_tomorrow"
    with pytest.raises(extension.UnavailableError, match=reason) as caught:
        extension.open_cpu()
    assert "What helps: update torch, or reinstall" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": "2.99"}, r"was built for torch 2\.99, this is"),
        ({"version": "0.0.1"}, r"is of version 0\.0\.1"),
        ({"upfirdn2d": "(Tensor x) -> Tensor"}, "was built from other sources: upfirdn2d differs"),
    ],
)
def test_a_library_of_another_build(other_library, changed, reason):
    info = {"version": resample_layers.__version__, "target": "2.11", **extension.SCHEMAS}
    text = "".join(f"{key}={value}\\n" for key, value in {**info, **changed}.items())
    source = f'const char* resample_layers_describe(void) {{ return "{text}"; }}'
    compile_library(other_library, source)
    with pytest.raises(extension.UnavailableError, match=reason):
        extension.open_cpu()


# CUDA libraries and the machines that they fit

INFO = {"cuda": "13.0", "architectures": "8.0;9.0+PTX"}
H100 = extension.Device("H100", (9, 0))


@pytest.mark.parametrize(
    ("architectures", "capability", "ptx_runs", "covered"),
    [
        ("8.0", (8, 0), False, True),
        ("8.0", (8, 6), False, True),  # newer, of the same major number
        ("8.6", (8, 0), False, False),
        ("8.0", (9, 0), True, False),
        ("8.0+PTX", (9, 0), True, True),
        ("8.0+PTX", (9, 0), False, False),  # the driver cannot compile it
        ("9.0+PTX", (8, 0), True, False),
        ("9.0a", (9, 0), False, True),
        ("10.0a", (10, 3), True, False),
        ("10.0f", (10, 3), False, True),
        ("7.5;8.6;12.0+PTX", (8, 9), False, True),
        ("7.5;8.6;12.0+PTX", (9, 0), True, False),
    ],
)
def test_architectures(architectures, capability, ptx_runs, covered):
    assert extension.covers(architectures, capability, ptx_runs) is covered


def test_architectures_that_are_none():
    with pytest.raises(ValueError, match=r"must be like 8\.0;9\.0a;12\.0\+PTX, got 'Ampere'"):
        extension.covers("Ampere", (8, 0), True)


@pytest.mark.parametrize("driver", [13000, 13020, 14000])
def test_a_machine_that_fits(driver):
    assert extension.misfit(INFO, driver, [H100, extension.Device("A100", (8, 0))]) is None


@pytest.mark.parametrize(
    ("driver", "devices", "text"),
    [
        (0, [H100], "were built with CUDA 13.0, and this machine's driver is missing"),
        (12080, [H100], "were built with CUDA 13.0, and this machine's driver serves CUDA 12.8"),
        (
            13000,
            [H100, extension.Device("T4", (7, 5))],
            "were built for architectures 8.0;9.0+PTX, and cuda:1 (T4) is 7.5. What helps: rebuild "
            "with TORCH_CUDA_ARCH_LIST=7.5",
        ),
    ],
)
def test_a_machine_that_does_not_fit(driver, devices, text):
    assert text in str(extension.misfit(INFO, driver, devices))


def test_ptx_needs_a_driver_as_new_as_the_compiler():
    b200 = extension.Device("B200", (10, 0))
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13020, [b200]) is None
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13000, [b200]) is not None
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13000, [H100]) is None  # has machine code


def test_a_torch_without_cuda_takes_no_library(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(extension.UnavailableError, match="is not built for NVIDIA's CUDA"):
        extension.open_cuda()


# The choice at the first tensor. CPU tensors stand for CUDA tensors: only the key differs. Each
# case is a fork of one process, since a choice is made once

FORKS = """
import os, sys, threading, traceback, warnings, torch
from pathlib import Path
from resample_layers.ops import extension, upfirdn2d
OP = torch.ops.resample_layers.upfirdn2d.default
KERNEL_GRAD = torch.ops.resample_layers.upfirdn2d_kernel_grad.default

x, k = torch.ones(1, 1, 3, 4), torch.ones(2, 2)
call = lambda: upfirdn2d(x, k).sum().item()

def defer(open_it=extension.open_cpu):
    del extension.choices["cpu"]
    extension.FOLDER = Path(sys.argv[1])
    return extension.Deferred("cpu", open_it)

def nothing():
    raise extension.UnavailableError("the reason", "the cure")

def loads_the_library_once_for_all_threads():
    deferred, results, together = defer(), [], threading.Barrier(16)
    sys.setswitchinterval(1e-6)
    threads = [
        threading.Thread(target=lambda: (together.wait(), results.append(call())))
        for _ in range(16)
    ]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert results == [24] * 16
    assert deferred.stand_in is None
    assert "upfirdn2d_cpu-" in str(torch.ops.loaded_libraries)
    assert OP(x, k, None, (1, 1), (1, 1), (0, 0, 0, 0), False).sum() == 24

def begins_with_the_kernel_gradient():
    defer()
    assert KERNEL_GRAD(x, x, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)).item() == 12

def begins_with_the_registered_operator():
    defer()
    out = OP(x.requires_grad_(), k, None, (1, 1), (1, 1), (0, 0, 0, 0), False)
    assert torch.autograd.grad(out.sum(), x)[0].sum() == 24

def begins_with_a_gradient():
    defer()
    out = upfirdn2d(x, k.requires_grad_())
    assert torch.autograd.grad(out.sum(), k)[0].sum() == 24

def falls_back_with_one_warning():
    deferred = defer(nothing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [call(), call()] == [24, 24]
    assert [str(w.message) for w in caught] == [
        "resample_layers computes natively on CPU devices, which is several times slower: the "
        "reason. What helps: the cure."
    ]
    assert deferred.stand_in is None
    assert extension.choices["cpu"].backend == "native"

def fails_at_each_call_where_forced():
    extension.FORCED = "extension"
    defer(nothing)
    for _ in range(2):
        try:
            call()
        except RuntimeError as error:
            assert str(error) == ("RESAMPLE_LAYERS_BACKEND=extension asks for compiled CPU "
                                  "kernels, but the reason. What helps: the cure.")
        else:
            raise AssertionError("no error")

for case in [f for f in list(globals().values()) if getattr(f, "__module__", "") == "__main__"]:
    if case.__name__ in ("<lambda>", "defer", "nothing"):
        continue
    worst = 0
    for _ in range(60 if "threads" in case.__name__ else 1):  # a race is seen in one of twenty
        child = os.fork()
        if child == 0:
            try:
                case()
                if "falls" not in case.__name__ and "fails" not in case.__name__:
                    assert extension.choices["cpu"].backend == "extension"
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        worst = max(worst, os.waitpid(child, 0)[1])
    print(case.__name__, worst, flush=True)
"""


def test_the_first_tensor(copy):
    result = run(copy, "-W", "error", "-c", FORKS, str(built().parent))
    outcomes = dict(line.split() for line in result.stdout.splitlines())
    assert len(outcomes) == 6
    assert set(outcomes.values()) == {"0"}, result.stderr


# The report


def test_the_report(copy):
    lines = run(copy, "-W", "error", "-m", "resample_layers.info").stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == ["versions", "libraries", "backends", "environment"]
    text = "\n".join(lines)
    assert f"resample_layers  {resample_layers.__version__}" in text
    assert f"torch            {torch.__version__}" in text
    assert str(library_of(copy)) in text
    assert "native: this installation holds no CPU kernels" in text
    assert "no variable that matters is set" in text


def test_the_report_tells_of_libraries(copy):
    for device in ("cpu", "cuda"):
        if extension.library_path(device).exists():
            shutil.copy(extension.library_path(device), library_of(copy, device))
    built()
    text = run(copy, "-W", "error", "-m", "resample_layers.info", RESAMPLE_LAYERS_CPU="baseline")
    assert "for torch 2.11 and newer; built with the headers of torch 2." in text.stdout
    assert "extension: baseline" in text.stdout
    assert "RESAMPLE_LAYERS_CPU=baseline" in text.stdout
    if library_of(copy, "cuda").exists():
        assert re.search(r"CUDA \d+\.\d+, architectures \d", text.stdout)


# The operators of the library


@pytest.fixture
def compiled():
    """The compiled kernels serve CPU tensors in this process."""
    require("CPU library in use", found=extension.choices["cpu"].backend == "extension")


def test_the_library_serves_every_operator(compiled):
    for name in extension.SCHEMAS:
        for each in (name, f"_{name}"):
            full = f"resample_layers::{each}"
            assert torch._C._dispatch_has_kernel_for_dispatch_key(full, "CPU")


X, K = torch.ones(1, 2, 3, 4), torch.ones(2, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X[0], K, None, (1, 1), (1, 1), (0,) * 4, False), "input must have 4 dimensions"),
        ((X, X[0], None, (1, 1), (1, 1), (0,) * 4, False), "kernel must have 1 or 2 dimensions"),
        ((X, K, K[0], (1, 1), (1, 1), (0,) * 4, False), "taps_y must have 1 dimension and goes"),
        ((X, K[:0], None, (1, 1), (1, 1), (0,) * 4, False), "kernel must have at least one tap"),
        ((X, K, None, (0, 1), (1, 1), (0,) * 4, False), r"up and down must be >= 1, got up=\(0, 1"),
        ((X, K, None, (1, 1, 1), (1, 1), (0,) * 4, False), "up and down must have 2 values"),
        ((X, K, None, (1, 1), (1, 1), (0,) * 3, False), "pad 4"),
        ((X, K, None, (1, 1), (1, 1), (-3, 0, 0, 0), False), "output must be at least 1x1"),
        ((X.int(), K, None, (1, 1), (1, 1), (0,) * 4, False), "input must be float16, bfloat16,"),
        ((X, K.int(), None, (1, 1), (1, 1), (0,) * 4, False), "kernel must be float16, bfloat16,"),
    ],
)
def test_every_check_speaks(compiled, arguments, text):
    with pytest.raises(RuntimeError, match=text):
        OPS._upfirdn2d.default(*arguments)


def test_every_check_of_the_kernel_gradient_speaks(compiled):
    with pytest.raises(RuntimeError, match=r"grad must be \[1, 2, 2, 3\], the shape of the op's"):
        OPS._upfirdn2d_kernel_grad.default(X, X, (1, 1), (1, 1), (0,) * 4, (2, 2))
    with pytest.raises(RuntimeError, match="kernel_size must have 2 values"):
        OPS._upfirdn2d_kernel_grad.default(X, X, (1, 1), (1, 1), (0,) * 4, (2, 2, 2))


LAYOUTS = {
    "contiguous": lambda n, c, h, w: torch.randn(n, c, h, w),
    "channels_last": lambda n, c, h, w: torch.randn(n, h, w, c).permute(0, 3, 1, 2),
    "slice": lambda n, c, h, w: torch.randn(n, c, h + 2, w + 3)[:, :, 1:-1, 2:-1],
    "slice of channels_last": lambda n, c, h, w: torch.randn(n, h + 2, w + 3, c + 1).permute(
        0, 3, 1, 2
    )[:, :c, 1:-1, 2:-1],
    "rows of channels_last": lambda n, c, h, w: torch.randn(n, h + 2, w, c).permute(0, 3, 1, 2)[
        :, :, :h
    ],
    "every other": lambda n, c, h, w: torch.randn(n, c, 2 * h, 2 * w)[:, :, ::2, ::2],
    "backwards axes": lambda n, c, h, w: torch.randn(w, n, h, c).permute(1, 3, 2, 0),
    "expanded": lambda n, c, h, w: torch.randn(n, 1, h, 1).expand(n, c, h, w),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def test_compiled_and_native_agree_on_random_calls(compiled):
    """Values, shapes, dtypes and strides, for thousands of configurations."""
    choose = random.Random(0)
    dtypes = list(TOLERANCE)
    done = 0
    while done < 2000:
        size = (
            choose.choice((0, 1, 2, 3)),
            choose.randrange(1, 6),
            *choose.choices((0, *range(1, 13), 1, 1), k=2),
        )
        dtype, layout = choose.choice(dtypes), choose.choice(list(LAYOUTS))
        input = LAYOUTS[layout](*size).to(dtype)
        kw, kh = choose.randrange(1, 7), choose.randrange(1, 7)
        taps_y = None
        match choose.randrange(3):
            case 0:
                kernel = torch.randn(kw, kh).t()
            case 1:
                kernel, kh = torch.randn(kw), kw
                taps_y = kernel
            case _:
                kernel = torch.randn(2 * kw)[::2]
                taps_y = torch.randn(kh).to(choose.choice(dtypes))
        other = choose.choice(dtypes)
        same = taps_y is kernel
        kernel = kernel.to(other)
        taps_y = kernel if same else taps_y
        up, down = (tuple(choose.choices((1, 2, 3), k=2)) for _ in range(2))
        pad, flip = tuple(choose.choices(range(-2, 6), k=4)), choose.random() < 0.5
        call = (input, kernel, taps_y, up, down, pad, flip)
        out_h = (size[2] * up[1] + pad[2] + pad[3] - kh) // down[1] + 1
        out_w = (size[3] * up[0] + pad[0] + pad[1] - kw) // down[0] + 1
        if out_h < 1 or out_w < 1:
            continue
        done += 1
        ours, theirs = OPS._upfirdn2d.default(*call), native.resample(*call)
        message = f"{layout} {size} {call[1:]}"
        assert ours.dtype == theirs.dtype, message
        assert ours.stride() == theirs.stride(), message
        limit = TOLERANCE[dtype]
        torch.testing.assert_close(
            ours,
            theirs,
            rtol=limit,
            atol=20 * limit,
            msg=lambda m: f"{m}\n{message}",  # noqa: B023
        )
        grad = torch.randn_like(ours)
        other = (up, down, pad, (kw, kh))
        ours = OPS._upfirdn2d_kernel_grad.default(input, grad, *other)
        theirs = native.kernel_grad(input, grad, *other)
        limit = 1e-11 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(
            ours,
            theirs,
            rtol=limit,
            atol=20 * limit,
            msg=lambda m: f"{m}\n{message}",  # noqa: B023
        )


def test_kernels_of_another_dtype_than_input_and_grad(compiled):
    x, g = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 4, 5).bfloat16()
    call = (x, g, (1, 1), (1, 1), (0,) * 4, (2, 2))
    torch.testing.assert_close(OPS._upfirdn2d_kernel_grad.default(*call), native.kernel_grad(*call))


def test_threads_of_the_caller(compiled):
    """Many Python threads at once, each with its own tensors."""
    inputs = [torch.randn(2, 3, 40, 50) for _ in range(8)]
    call = (None, (2, 2), (1, 1), (2, 1, 2, 1), False)
    kernel = torch.randn(4, 4)
    wanted = [OPS._upfirdn2d.default(x, kernel, *call) for x in inputs]
    failures = []

    def work(x, out):
        for _ in range(50):
            if not torch.equal(OPS._upfirdn2d.default(x, kernel, *call), out):
                failures.append(out)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_driver_is_asked_without_initialising_cuda():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version = extension.driver_version()
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert version == 0
    else:
        assert version >= 1000
