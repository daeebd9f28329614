# SPDX-License-Identifier: BSD-3-Clause
"""Resampling layers for PyTorch: zero insertion, FIR filter, decimation, done once and right.

- ``UpFirDnUpsample``: a layer, [H, W] -> [H * f, W * f]
- ``UpFirDnDownsample``: a layer, [H, W] -> [H // f, W // f]
- ``UpFirDnSmooth``: a layer, an FIR filter beside a strided convolution
- ``UpFirDnUpsample1d``, ``UpFirDnUpsample3d``, ...: the three for [N, C, L] and [N, C, D, H, W]
- ``UpFirDnResample1d``, ``UpFirDnResample``, ...: by a rational rate, as scipy's ``resample_poly``
- ``FilteredLeakyReLU``: a layer, StyleGAN3's leaky ReLU between two low-pass filters
- ``FilteredSnake``, ``FilteredSnakeBeta``: layers, BigVGAN's activations of signals, likewise
- ``make_resample_kernel``: taps -> a normalised 2-D kernel
- ``ops``: the functions that the layers call, ``ops.upfirdn2d``, also 1d and 3d
- ``filters``: named taps, low-pass design for any factor
- ``geometry``: sizes and pads, derived
- ``compat``: the functions and layers of five other codes, over these; import it by name
"""

from . import filters, geometry, ops
from .alias_free import FilteredLeakyReLU, FilteredSnake, FilteredSnakeBeta
from .filters import make_resample_kernel
from .layers import (
    UpFirDnDownsample,
    UpFirDnDownsample1d,
    UpFirDnDownsample3d,
    UpFirDnResample,
    UpFirDnResample1d,
    UpFirDnResample3d,
    UpFirDnSmooth,
    UpFirDnSmooth1d,
    UpFirDnSmooth3d,
    UpFirDnUpsample,
    UpFirDnUpsample1d,
    UpFirDnUpsample3d,
)
from .version import __version__

__all__ = [
    "FilteredLeakyReLU",
    "FilteredSnake",
    "FilteredSnakeBeta",
    "UpFirDnDownsample",
    "UpFirDnDownsample1d",
    "UpFirDnDownsample3d",
    "UpFirDnResample",
    "UpFirDnResample1d",
    "UpFirDnResample3d",
    "UpFirDnSmooth",
    "UpFirDnSmooth1d",
    "UpFirDnSmooth3d",
    "UpFirDnUpsample",
    "UpFirDnUpsample1d",
    "UpFirDnUpsample3d",
    "__version__",
    "filters",
    "geometry",
    "make_resample_kernel",
    "ops",
]
