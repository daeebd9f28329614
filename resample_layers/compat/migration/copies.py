# SPDX-License-Identifier: BSD-3-Clause
"""What each code calls its copy of the op, and what stands for it here."""

from __future__ import annotations

import importlib
import re
from typing import Any, NamedTuple

COMPAT = "resample_layers.compat"


class Copied(NamedTuple):
    """What a code calls its copy of the op."""

    package: str
    modules: dict[str, str]  # in the package: which module of compat stands for it
    exports: bool = False  # whether the package offers the functions, or only the modules
    deleted: bool = True
    installed: bool = False  # whether a package of this name can be that of an index
    least: int = 2  # so many of the modules make a package of this name a copy
    generic: bool = False  # whether any code may have the names of the modules
    beside: str = ""  # a module next to it, which goes too where compat has all that it defines
    loader: str = ""  # a module of it that only builds the kernel


ROSINALITY = {"fused_act": "rosinality", "upfirdn2d": "rosinality"}
NVIDIA = ("bias_act", "conv2d_gradfix", "conv2d_resample", "filtered_lrelu", "fma", "upfirdn2d")
MMCV = ("bias_act", "filtered_lrelu", "fused_bias_leakyrelu", "upfirdn2d")
ALIAS_FREE = ("act", "filter", "resample")
FUSED = ("torch", *(f"torch.{name}" for name in ALIAS_FREE), "cuda", "cuda.activation1d")
BIGVGAN: dict[str, Any] = {
    "exports": True,
    "generic": True,
    "beside": "activations",
}
CODES: dict[str, tuple[Copied, ...]] = {
    "rosinality": (Copied("op", {**ROSINALITY, "conv2d_gradfix": "conv2d_gradfix"}, exports=True),),
    "basicsr": (Copied("basicsr.ops", dict.fromkeys(ROSINALITY, "basicsr"), installed=True),),
    "nvidia": (Copied("torch_utils.ops", dict.fromkeys(NVIDIA, "nvidia"), installed=True),),
    "mmcv": (
        Copied(
            "mmcv.ops", dict.fromkeys(MMCV, "mmcv"), exports=True, deleted=False, installed=True
        ),
    ),
    "bigvgan": (
        Copied(
            "alias_free_activation",
            dict.fromkeys(FUSED, "bigvgan"),
            least=1,
            loader="load",
            **BIGVGAN,
        ),
        Copied("alias_free_torch", dict.fromkeys(ALIAS_FREE, "bigvgan"), installed=True, **BIGVGAN),
    ),
}
SOURCES = re.compile(r"(upfirdn2d|bias_act|filtered_lrelu|fused_bias_act).*\.(cpp|cu|h)")


def get(module: str) -> Any:
    return importlib.import_module(f"{COMPAT}.{module}")
