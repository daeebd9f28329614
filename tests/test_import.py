# SPDX-License-Identifier: BSD-3-Clause
"""Importing is quick, quiet and without effect."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import resample_layers

from .tools import require

ROOT = Path(__file__).parent.parent


def run(code, *flags, **environment):
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_warnings_as_errors():
    run("import resample_layers, resample_layers.ops", "-W", "error")


STATE = """
import json, locale, os, random, signal, sys, threading, warnings, torch

def state():
    "All that a package could leave changed behind the back of a program."
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "backends": (
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32,
            matmul.allow_tf32, matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction, torch.backends.opt_einsum.enabled,
            torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(), torch.backends.mkldnn.enabled),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                 torch.is_anomaly_enabled()),
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d))
                     for d in ("cpu", "cuda")],
        "deterministic": (torch.are_deterministic_algorithms_enabled(),
                          torch.is_deterministic_algorithms_warn_only_enabled(),
                          torch.utils.deterministic.fill_uninitialized_memory),
        "matmul": torch.get_float32_matmul_precision(),
        "denormals": float(torch.tensor(1e-40) * 1),
        "random": (torch.get_rng_state().tolist(), torch.initial_seed(), random.getstate()),
        "print": repr(torch._tensor_str.PRINT_OPTS),
        "modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "jit": torch._C._jit_texpr_fuser_enabled(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "process": (os.getcwd(), sys.path[:], sys.getrecursionlimit(), sys.excepthook,
                    sys.displayhook, threading.active_count(), locale.setlocale(locale.LC_ALL),
                    [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]),
        "operators": {str(s) for s in torch._C._jit_get_all_schemas()
                      if not s.name.startswith("resample_layers::")},
        "decompositions": len(torch._decomp.decomposition_table),
    }
"""


def test_no_compiler_machinery_no_cuda_and_no_global_state():
    code = """
before, old = set(sys.modules), state()
import resample_layers
new, now = sorted(set(sys.modules) - before), state()
changed = [name for name in old if old[name] != now[name]]
print(json.dumps([new, torch.cuda.is_initialized(), changed]))
"""
    new, cuda_initialised, changed = json.loads(run(STATE + code))
    assert changed == []
    assert not cuda_initialised
    heavy = ("torch.utils.cpp_extension", "setuptools", "distutils", "ninja", "triton", "numpy",
             "scipy", "torchvision", "torch._inductor", "torch._dynamo", "subprocess")  # fmt: skip
    assert not [name for name in new if name.startswith(heavy)]


def test_the_test_above_sees_changes():
    """One of these in a module of ours, and it is red."""
    code = """
for change in (
    "torch.set_default_dtype(torch.float64)", "torch.manual_seed(0)", "random.seed(0)",
    "torch.backends.cudnn.benchmark = True", "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.use_deterministic_algorithms(True)", "torch.set_grad_enabled(False)",
    "torch.set_num_threads(torch.get_num_threads() + 1)", "warnings.simplefilter('ignore')",
    "os.environ['TORCH_LOGS'] = ''", "sys.setrecursionlimit(5000)",
):
    old = state()
    exec(change)
    assert old != state(), change
"""
    run(STATE + code)


def test_no_file_is_written(tmp_path):
    code = "import resample_layers, torch; resample_layers.UpFirDnUpsample()(torch.ones(1,1,4,4))"
    run(code, "-B", HOME=str(tmp_path), TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert not list(tmp_path.iterdir())


READ_ONLY = """
import ctypes, os, sys, torch
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        os.chmod(os.path.join(folder, name), 0o444)
    os.chmod(folder, 0o555)
# Root may write all the same, by the capabilities 1 and 2 (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
# without them its rights are those of the owner
libc = ctypes.CDLL(None, use_errno=True)
version, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(version, sets) == 0
sets[0] &= ~0b110
assert libc.capset(version, sets) == 0, os.strerror(ctypes.get_errno())
try:
    open(os.path.join(sys.argv[1], "file"), "w")
except PermissionError:
    pass
else:
    raise AssertionError("the folder can be written to")
os.environ.pop("HOME", None)
if sys.argv[2]:
    os.environ["HOME"] = sys.argv[2]
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import resample_layers.info
assert resample_layers.__file__.startswith(sys.argv[1])
assert resample_layers.UpFirDnUpsample()(torch.ones(1, 1, 4, 4)).shape == (1, 1, 8, 8)
print(resample_layers.info.report())
"""


def test_a_read_only_installation_without_a_home(tmp_path):
    """The package and what it computes with need to write nowhere."""
    require("capset", found=sys.platform == "linux")
    ignore = shutil.ignore_patterns("__pycache__")
    for number, home in enumerate(("", "/nowhere")):
        package = tmp_path / str(number) / "resample_layers"
        shutil.copytree(ROOT / "resample_layers", package, ignore=ignore)
        command = [sys.executable, "-c", READ_ONLY, str(package), home]
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        result = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
        for path in [package, *package.rglob("*")]:  # pytest removes the folder
            path.chmod(0o755)
        assert result.returncode == 0, result.stderr
        assert f"({package})" in result.stdout
        assert not list(package.rglob("__pycache__"))


STOPPED = """
import os, sys, torch
import torch.fx.experimental.proxy_tensor

ours = os.path.join(os.getcwd(), "resample_layers")
kept = []

def import_and_stop(at):
    "Ctrl-C at the line of this number, of our modules and of torch.library; how many there are."
    seen = 0

    def trace(frame, event, argument):
        nonlocal seen
        name = frame.f_code.co_filename
        if not name.startswith(ours) and name != torch.library.__file__:
            return None
        seen += event == "line"
        if event == "line" and seen == at:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        import resample_layers
    except KeyboardInterrupt as error:
        kept.append(error)  # as an interactive session keeps it, with all that its frames hold
    finally:
        sys.settrace(None)
    return seen

def check():
    import resample_layers
    from resample_layers.ops import extension, upfirdn2d
    from resample_layers.ops.op import OPS

    assert len(OPS) == len(extension.SCHEMAS) >= 6
    x, k = torch.ones(1, 1, 4, 4, requires_grad=True), torch.ones(2)
    same = (x, k, k, (1, 1), (1, 1), (0, 0, 0, 0), False)
    registered = torch.ops.resample_layers.upfirdn2d.default
    assert registered is OPS["upfirdn2d"].registered
    for out in (upfirdn2d(x, k), registered(*same)):  # by the Function, by the registered rule
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert (out.sum(), grad.sum()) == (36, 36)
    batched = torch.vmap(lambda x: OPS["upfirdn2d"].raw(x, *same[1:]))(x.detach()[None])
    assert batched.shape == (1, 1, 1, 3, 3)
    find = torch._library.simple_registry.singleton.find
    for op in OPS.values():
        assert find(op.registered.name()).fake_impl.kernel and find(op.raw.name()).fake_impl.kernel
    with torch._subclasses.FakeTensorMode():
        assert upfirdn2d(torch.empty(1, 1, 4, 4), torch.empty(2)).shape == (1, 1, 3, 3)
    assert extension.choices["cpu"].backend == sys.argv[1]
    can_have_cuda = torch.version.cuda is not None or torch.version.hip is not None
    assert ("cuda" in extension.deferred or "cuda" in extension.choices) == can_have_cuda

def fork(body):
    child = os.fork()
    if child == 0:
        body()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

# What torch imports at its first use of these is imported once, before the forks
with torch._subclasses.FakeTensorMode():
    torch.empty(2) + 1
torch.vmap(lambda x: x + 1)(torch.ones(2))

read, write = os.pipe()
fork(lambda: os.write(write, str(import_and_stop(0)).encode()))
count = int(os.read(read, 20))
assert count > 2000
for at in range(count // 20, count, count // 10):
    def body():
        import_and_stop(at)
        assert len(kept) == 1, at
        try:
            check()
        except BaseException as error:
            raise AssertionError(f"stopped at line {at} of {count}") from error
    fork(body)
print("done")
"""


def test_an_import_that_ctrl_c_stopped_can_be_repeated():
    """At places all over it; at each, half of an op or of a kernel's choice is registered."""
    backend = resample_layers.ops.extension.choices["cpu"].backend
    command = [sys.executable, "-c", STOPPED, backend]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.endswith("done\n"), ran.stderr
    assert "Overriding a previously registered kernel" not in ran.stderr


MOVED = """
import builtins, torch

import_of_python = builtins.__import__

def moved(name, globals=None, locals=None, names=(), level=0):
    ours = str((globals or {}).get("__name__")).startswith("resample_layers")
    if ours and name.startswith("torch._library"):
        raise ImportError(f"cannot import {names} from {name}")
    return import_of_python(name, globals, locals, names, level)

builtins.__import__ = moved
from resample_layers.ops import owner, upfirdn2d

assert upfirdn2d(torch.ones(1, 1, 4, 4), torch.ones(2)).shape == (1, 1, 3, 3)
owner._drop("upfirdn2d")
assert "upfirdn2d" not in owner.OWNER.libraries
print("done")
"""


def test_a_torch_that_has_moved_its_table_of_fakes():
    """Only an import after Ctrl-C reads the table, which is private to torch."""
    ran = subprocess.run([sys.executable, "-c", MOVED], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "done\n", ran.stderr


def test_the_core_depends_on_torch_alone():
    """Every import in the package is torch's, the standard library's or its own."""
    for path in (ROOT / "resample_layers").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not line.startswith(" "):
                name = words[1].split(".")[0]
                assert name in {"", "torch", "resample_layers"} | sys.stdlib_module_names, line
