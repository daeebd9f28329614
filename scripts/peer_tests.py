# SPDX-License-Identifier: BSD-3-Clause
"""Peers' own tests of their ops, run with ours in their place.

    python scripts/peer_tests.py PEERS

``PEERS`` is a folder of checkouts: ``mmcv``, for ``tests/test_ops``, and ``kornia``, for
``tests/filters/test_blur_pool.py``, beside an installed kornia. scipy's tests of ``upfirdn`` lie in
the scipy that is installed. Nothing of them is kept here. What is not there, or cannot be imported,
is printed as ``NOT RUN: step, reason``. Left out are scipy's tests of signals that go on beyond
their ends otherwise than by zeros, and kornia's of its pools that are no plain filter and of an
error that we have no reason for.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resample_layers import compat, ops  # noqa: E402

MMCV = ("test_upfirdn2d.py", "test_filtered_lrelu.py", "test_fused_bias_leakyrelu.py")


def upfirdn(
    h: Any,
    x: Any,
    up: int = 1,
    down: int = 1,
    axis: int = -1,
    mode: str = "constant",
    cval: Any = 0,
) -> np.ndarray:
    """scipy.signal.upfirdn, by ours: pads ``(taps - 1, taps - up)``."""
    if mode != "constant" or cval != 0:
        pytest.skip(f"NOT RUN: scipy's tests of mode={mode!r}, ours are layers' padding modes")
    h, x = np.asarray(h), np.asarray(x)
    if h.ndim != 1 or h.size == 0:
        raise ValueError(f"h must be 1-D with non-zero length, got shape {h.shape}")
    kind = np.result_type(h.dtype, x.dtype, np.float32)
    if np.issubdtype(kind, np.complexfloating):
        (h1, h2), (x1, x2) = (h.real, h.imag), (x.real, x.imag)
        parts = (1, h1, x1), (-1, h2, x2), (1j, h1, x2), (1j, h2, x1)
        return sum(f * upfirdn(a, b, up, down, axis) for f, a, b in parts).astype(kind)
    moved = np.moveaxis(x, axis, -1)
    signals = torch.from_numpy(np.array(moved, kind)).reshape(1, -1, moved.shape[-1])
    taps = torch.from_numpy(np.array(h, kind))
    out = ops.upfirdn1d(signals, taps, up, down, (len(h) - 1, len(h) - up)).numpy()
    return np.moveaxis(out.reshape(*moved.shape[:-1], -1), -1, axis)


class Plugin:
    """What scipy's own conftest gives its tests: NumPy as the one backend."""

    @pytest.fixture
    def xp(self) -> Any:
        return importlib.import_module("array_api_compat_numpy")

    def pytest_configure(self, config: Any) -> None:
        for marker in ("skip_xp_backends", "xfail_xp_backends", "uses_xp_capabilities"):
            config.addinivalue_line("markers", marker)


def as_scipy() -> None:
    """Ours in scipy's place, and by other names what a newer version's tests import."""
    import scipy.signal
    from scipy._lib import _array_api, array_api_compat, array_api_extra
    from scipy._lib.array_api_compat import numpy as namespace

    table = _array_api.xp_capabilities_table
    table[upfirdn] = table[scipy.signal.upfirdn]
    scipy.signal.upfirdn = upfirdn
    if not hasattr(_array_api, "xp_copy_to_numpy"):
        _array_api.xp_copy_to_numpy = np.array
    external: Any = types.ModuleType("scipy._external")
    external.array_api_extra, external.array_api_compat = array_api_extra, array_api_compat
    names = {
        "": external,
        ".array_api_extra": array_api_extra,
        ".array_api_compat": array_api_compat,
    }
    sys.modules.update({f"scipy._external{name}": module for name, module in names.items()})
    sys.modules["array_api_compat_numpy"] = namespace


def run(step: str, files: list[Path], *only: str) -> int:
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        print(f"NOT RUN: {step}, there is no {', '.join(missing)}")
        return 0
    quiet = ["-q", "-rs", "-p", "no:cacheprovider", "-c", "/dev/null", "--import-mode=importlib"]
    code = pytest.main([*quiet, *only, *map(str, files)], plugins=[Plugin()])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        print(f"NOT RUN: {step}, all of it was skipped")
        return 0
    return int(code)


def as_mmcv() -> None:
    """What mmcv's tests import, of ours."""
    utils: Any = types.ModuleType("mmcv.utils")
    for device in ("CUDA", "MUSA", "NPU"):
        setattr(utils, f"IS_{device}_AVAILABLE", device == "CUDA" and torch.cuda.is_available())
    package: Any = types.ModuleType("mmcv")
    package.ops, package.utils = compat.mmcv, utils
    mmengine: Any = types.ModuleType("mmengine.utils")
    mmengine.digit_version = lambda version: tuple(map(int, version.split("+")[0].split(".")[:3]))
    rocm: Any = types.ModuleType("mmengine.utils.dl_utils.parrots_wrapper")
    rocm.is_rocm_pytorch = lambda: torch.version.hip is not None
    for module in (mmengine, rocm):
        sys.modules[module.__name__] = module
    sys.modules["mmengine"] = types.ModuleType("mmengine")
    sys.modules["mmengine.utils.dl_utils"] = types.ModuleType("mmengine.utils.dl_utils")
    sys.modules.update({"mmcv": package, "mmcv.ops": compat.mmcv, "mmcv.utils": utils})


def blur_pool2d(input: Any, kernel_size: Any, stride: int = 2) -> torch.Tensor:
    """kornia.filters.blur_pool2d, by ours: binomial taps, and zeros that keep the size."""
    kh, kw = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    wide = torch.promote_types(input.dtype, torch.float32)
    taps_x, taps_y = (
        input.new_tensor([math.comb(k - 1, i) / 2 ** (k - 1) for i in range(k)], dtype=wide)
        for k in (kw, kh)
    )
    x, y = (kw - 1) // 2, (kh - 1) // 2
    return ops.upfirdn2d(input, (taps_x, taps_y), 1, stride, (x, x, y, y))


class BlurPool2D(torch.nn.Module):
    """kornia.filters.BlurPool2D, by ours."""

    def __init__(self, kernel_size: Any, stride: int = 2) -> None:
        super().__init__()
        self.arguments = kernel_size, stride

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return blur_pool2d(input, *self.arguments)


def as_kornia(checkout: Path) -> bool:
    """Ours in the installed kornia's place; whether there is one."""
    if importlib.util.find_spec("kornia") is None:
        print("NOT RUN: kornia's test_blur_pool.py, kornia is not installed")
        return False
    filters = importlib.import_module("kornia.filters")
    filters.BlurPool2D, filters.blur_pool2d = BlurPool2D, blur_pool2d
    sys.path.append(str(checkout))  # for its package of tools, "testing"
    return True


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    peers = Path(sys.argv[1])
    as_scipy()
    signal = Path(importlib.import_module("scipy.signal").__file__ or "").parent
    failed = run("scipy's test_upfirdn.py", [signal / "tests/test_upfirdn.py"])
    if as_kornia(peers / "kornia"):
        only = ("-k", "TestBlurPool and not exception")
        files = [peers / "kornia/tests/filters/test_blur_pool.py"]
        failed |= run("kornia's test_blur_pool.py", files, *only)
    as_mmcv()
    for name in MMCV:
        failed |= run(f"mmcv's {name}", [peers / "mmcv/tests/test_ops" / name])
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
