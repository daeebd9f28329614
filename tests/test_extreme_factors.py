# SPDX-License-Identifier: BSD-3-Clause
"""Memory follows what is computed: not the zeros that are inserted, padded or cropped away."""

import os
import subprocess
import sys

import pytest

from resample_layers.ops import extension

from .tools import require

# Each prints the megabytes that a call adds at its peak, and whether its values are right. The
# peak starts anew: that of getrusage begins with the peak of the process that started this one
MEASURED = """
import torch
from resample_layers.ops import upfirdn2d
def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))
upfirdn2d(torch.ones(1, 1, 4, 4), torch.ones(2, 2))
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
before = memory("VmRSS")
{}
print(round(memory("VmHWM") - before), right)
"""
CALLS = {
    "one pixel between four million zeros": """
out = upfirdn2d(torch.full((1, 1, 1, 1), 3.0), torch.tensor([[1.0, 2.0]]), up=(2**22, 1))
right = out.shape == (1, 1, 1, 2**22 - 1) and out[..., 0].item() == 6 and not out[..., 1:].any()
out = upfirdn2d(torch.full((1, 1, 1, 1), 3.0), torch.tensor([[1.0, 2.0]]), up=(2**22, 1),
                pad=(1, 0, 0, 0))
right = right and out[0, 0, 0, :3].tolist() == [3, 6, 0] and not out[..., 3:].any()
""",
    "a pad of two billion, cropped again": """
pad = (2**31 - 1, 4 - 2**31, 0, 0)
out = upfirdn2d(torch.ones(1, 1, 1, 7), torch.ones(1, 4), pad=pad)
right = out.shape == (1, 1, 1, 7) and not out.any()
""",
    "a crop of two billion, padded again": """
out = upfirdn2d(torch.ones(1, 1, 1, 7), torch.ones(1, 4), pad=(4 - 2**31, 2**31 - 1, 0, 0))
right = out.shape == (1, 1, 1, 7) and not out.any()
""",
    "the gradient of many taps": """
x, kernel = torch.ones(64, 1, 4, 4), torch.zeros(1001, 1001, requires_grad=True)
out = upfirdn2d(x, kernel, pad=(500, 500))
out.backward(torch.ones_like(out))
right = kernel.grad[500, 500].item() == 64 * 16 and kernel.grad[0, 0].item() == 0
""",
}


@pytest.mark.parametrize("backend", ["native", "extension"])
@pytest.mark.parametrize("call", CALLS)
def test_peak_memory(call, backend):
    require("/proc/self/clear_refs", found=os.access("/proc/self/clear_refs", os.W_OK))
    if backend == "native" and "gradient" in call:
        pytest.skip(f"{call}, natively: it takes minutes")
    if backend == "extension" and extension.choices["cpu"].backend != "extension":
        pytest.skip(f"{call}, compiled: {extension.choices['cpu'].reason}")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(CALLS[call])],
        env={**os.environ, "RESAMPLE_LAYERS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes, right = done.stdout.split()
    assert right == "True"
    assert int(megabytes) < 200


def test_the_test_above_sees_what_is_taken():
    """A process that was started by a large one had a large peak from its beginning."""
    require("/proc/self/clear_refs", found=os.access("/proc/self/clear_refs", os.W_OK))
    code = MEASURED.format("right = torch.ones(100, 2**20).sum() > 0")
    start = 'import subprocess, sys; large = b"x" * (700 << 20); subprocess.run(sys.argv[1:])'
    command = [sys.executable, "-c", start, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) >= 400
