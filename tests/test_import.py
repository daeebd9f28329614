# SPDX-License-Identifier: BSD-3-Clause
"""Importing is quick, quiet and without effect."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def test_no_compiler_machinery_no_cuda_and_no_global_state():
    code = """
import json, sys, torch
flags = lambda: [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
                 torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
                 torch.are_deterministic_algorithms_enabled(), torch.initial_seed()]
before, state = set(sys.modules), flags()
import resample_layers
new = sorted(set(sys.modules) - before)
print(json.dumps([new, torch.cuda.is_initialized(), state == flags()]))
"""
    new, cuda_initialised, unchanged = json.loads(run(code))
    assert unchanged
    assert not cuda_initialised
    heavy = ("torch.utils.cpp_extension", "setuptools", "distutils", "ninja", "triton", "numpy",
             "scipy", "torchvision", "torch._inductor", "torch._dynamo", "subprocess")  # fmt: skip
    assert not [name for name in new if name.startswith(heavy)]


def test_no_file_is_written(tmp_path):
    code = "import resample_layers, torch; resample_layers.UpFirDnUpsample()(torch.ones(1,1,4,4))"
    run(code, "-B", HOME=str(tmp_path), TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_core_depends_on_torch_alone():
    """Every import in the package is torch's, the standard library's or its own."""
    for path in (ROOT / "resample_layers").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not line.startswith(" "):
                name = words[1].split(".")[0]
                assert name in {"", "torch", "resample_layers"} | sys.stdlib_module_names, line
