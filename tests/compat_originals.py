# SPDX-License-Identifier: BSD-3-Clause
"""The originals that ``resample_layers.compat`` reproduces, on the CPU, and calls to compare.

Nothing of theirs is kept here: they are imported from checkouts. ``PEERS=DIR`` names a folder with
complete ones: ``rosinality``, ``basicsr``, ``gfpgan``, ``ada``, ``stylegan3``, ``mmcv``, ``gpen``,
``lia``, ``edm``, ``score_sde`` and ``r3gan``. A folder ``site`` beside them holds packages: ``pip
install --no-deps --target site antialiased-cnns timm kornia k-diffusion diffusers bigvgan
alias-free-torch``.
"""

import importlib
import importlib.util
import os
import re
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.torch_version import TorchVersion
from torch.utils import cpp_extension

from .tools import require

TAPS = [1.0, 3.0, 3.0, 1.0]
UNEVEN = [[1.0, 2.0, 0.5], [3.0, -1.0, 4.0]]  # no symmetry, not square
EIGHT = [1.0, 4.0, -2.0, 7.0, 3.0, 5.0, 2.0, 1.0]


class Call(NamedTuple):
    """``convention.function(image of shape, *tensors, **arguments)``."""

    convention: str
    function: str
    shape: tuple[int, ...]
    tensors: tuple[Any, ...] = ()  # lists of numbers, or shapes of random ones
    arguments: dict[str, Any] = {}  # noqa: RUF012

    @property
    def name(self) -> str:
        settings = ",".join(f"{k}={v}" for k, v in self.arguments.items())
        tensors = " ".join(str(t if isinstance(t, tuple) else np.shape(t)) for t in self.tensors)
        return f"{self.convention}.{self.function} {self.shape} {tensors} {settings}"

    def inputs(self) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """The image and the other tensors, always the same."""
        generator = torch.Generator().manual_seed(7)
        image = torch.randn(self.shape, generator=generator)
        rest = [
            torch.randn(t, generator=generator)
            if isinstance(t, tuple)
            else None if t is None else torch.tensor(t)
            for t in self.tensors
        ]  # fmt: skip
        return image, rest

    def run(self, functions: dict[str, Any], dtype=torch.float32, **also: Any) -> torch.Tensor:
        image, rest = self.inputs()
        return functions[self.function](image.to(dtype), *rest, **self.arguments, **also)


def _weights(*calls):
    return [Call("nvidia", "conv2d_resample", *call) for call in calls]


def _filtered(*calls):
    return [Call("nvidia", "filtered_lrelu", X, *call) for call in calls]


X = (2, 3, 6, 5)
CALLS = [
    Call("rosinality", "upfirdn2d", X, (UNEVEN,), {"pad": (2, 1)}),
    Call("rosinality", "upfirdn2d", X, (UNEVEN,), {"up": 2, "pad": (2, 1)}),
    Call("rosinality", "upfirdn2d", X, (UNEVEN,), {"up": (3, 2), "down": (1, 2), "pad": (2, 1)}),
    Call("rosinality", "upfirdn2d", X, (UNEVEN,), {"down": 2, "pad": (2, -1, 0, 3)}),
    Call("rosinality", "Upsample", X, (), {"kernel": TAPS}),
    Call("rosinality", "Upsample", X, (), {"kernel": [1, 2, 5, 3, 1], "factor": 3}),
    Call("rosinality", "Downsample", X, (), {"kernel": [1, 2, 5]}),
    Call("rosinality", "Blur", X, (), {"kernel": TAPS, "pad": (2, 1), "upsample_factor": 2}),
    Call("rosinality", "Blur", X, (), {"kernel": UNEVEN, "pad": (0, 1, 2, -1)}),
    Call("rosinality", "fused_leaky_relu", X, ((3,),), {"scale": 1.5}),
    Call("rosinality", "fused_leaky_relu", (4, 3), ((3,),)),
    Call("basicsr", "upfirdn2d", X, (UNEVEN,), {"up": 2, "down": 3, "pad": (2, 1)}),
    Call("basicsr", "upfirdn2d", X, (UNEVEN,), {"down": 2, "pad": (-1, 2)}),
    Call("basicsr", "UpFirDnUpsample", X, (), {"resample_kernel": [1, 2, 5]}),
    Call("basicsr", "UpFirDnDownsample", X, (), {"resample_kernel": [1, 2, 5, 1]}),
    Call("basicsr", "UpFirDnSmooth", X, (),
         {"resample_kernel": [1, 2, 5, 1], "upsample_factor": 2, "kernel_size": 3}),
    Call("basicsr", "UpFirDnSmooth", X, (),
         {"resample_kernel": [1, 2, 5, 1], "downsample_factor": 2, "kernel_size": 3}),
    Call("nvidia", "upfirdn2d", X, (UNEVEN,), {"padding": [2, 1]}),
    Call("nvidia", "upfirdn2d", X, (UNEVEN,), {"padding": 2, "flip_filter": True, "gain": 3.0}),
    Call("nvidia", "upfirdn2d", X, (UNEVEN,),
         {"up": [3, 1], "down": [2, 1], "padding": [2, 0, -1, 3]}),
    Call("nvidia", "upfirdn2d", X, (EIGHT,), {"up": 2, "padding": [4, 3], "gain": 4.0}),
    Call("nvidia", "upfirdn2d", X, (EIGHT,), {"down": [1, 2], "padding": 4, "flip_filter": True}),
    Call("nvidia", "upfirdn2d", X, (None,), {"up": [1, 2], "padding": [1, 0], "gain": 2.0}),
    Call("nvidia", "filter2d", X, (UNEVEN,), {"padding": [1, 0]}),
    Call("nvidia", "filter2d", X, (EIGHT,), {"flip_filter": True}),
    Call("nvidia", "upsample2d", X, (UNEVEN,), {"up": [2, 3], "gain": 0.5}),
    Call("nvidia", "upsample2d", X, (EIGHT,), {"padding": [1, -1, 0, 2]}),
    Call("nvidia", "downsample2d", X, (UNEVEN,), {"down": [3, 2], "padding": 1}),
    Call("nvidia", "downsample2d", X, (EIGHT,), {"gain": 2.0}),
    *_weights(
        (X, ((4, 3, 3, 3), UNEVEN), {"padding": 1}),
        (X, ((4, 3, 3, 3), None), {"padding": [1, 2, 0, 3], "flip_weight": False}),
        (X, ((4, 3, 3, 3), UNEVEN), {"up": 2, "padding": 1}),
        (X, ((4, 3, 2, 3), UNEVEN), {"up": 2, "padding": [1, 2], "flip_weight": False}),
        (X, ((4, 3, 3, 3), UNEVEN), {"down": 2, "padding": 1, "flip_filter": True}),
        (X, ((4, 3, 3, 2), UNEVEN), {"up": 3, "down": 2, "padding": 1, "flip_filter": True}),
        (X, ((4, 3, 1, 1), UNEVEN), {"up": 2}),
        (X, ((4, 3, 1, 1), UNEVEN), {"down": 2}),
        (X, ((4, 3, 1, 1), UNEVEN), {"up": 2, "down": 2}),
        ((2, 4, 6, 5), ((6, 2, 3, 3), EIGHT), {"up": 2, "padding": 1, "groups": 2}),
        ((2, 4, 6, 5), ((6, 2, 3, 3), EIGHT), {"down": 2, "padding": [1, 0], "groups": 2}),
    ),
    *(
        Call("nvidia", "bias_act", X, ((3,),), {"act": act})
        for act in (
            "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish",
        )
    ),
    Call("nvidia", "bias_act", X, ((3,),), {"act": "lrelu", "alpha": 0.1, "gain": 2, "clamp": 0.7}),
    Call("nvidia", "bias_act", X, ((3,),), {"act": "lrelu", "alpha": -0.3, "gain": -1.5}),
    Call("nvidia", "bias_act", X, ((5,),), {"act": "swish", "dim": 3, "gain": 0.5, "clamp": 0.3}),
    Call("nvidia", "bias_act", X, (None,), {"act": "relu", "clamp": 0}),
    Call("nvidia", "bias_act", (4, 3), ((3,),), {"act": "lrelu"}),
    Call("nvidia", "bias_act", (4, 3), ((4,),), {"act": "linear", "dim": 0, "gain": 0.3}),
    *_filtered(
        ((None, None, None), {}),
        ((EIGHT, EIGHT, (3,)), {"up": 2, "down": 2, "padding": [8, 6, 7, 6], "clamp": 0.9}),
        ((EIGHT, UNEVEN, (3,)), {"up": 4, "down": 2, "padding": 5, "flip_filter": True}),
        ((UNEVEN, EIGHT, None), {"up": 2, "down": 3, "padding": [6, 7], "slope": 0.0, "gain": 3.0}),
        ((None, TAPS, (3,)), {"up": 2, "padding": [1, 2, -1, 3], "slope": 1.0, "gain": 1}),
        ((UNEVEN, None, (3,)), {"down": 2, "padding": 3, "slope": 0.1, "clamp": 256}),
    ),
    *(
        Call("bigvgan", f"Activation1d of {kind}", (2, 3, length), parameters,
             {"alpha_logscale": log_scale, **arguments})
        for kind, parameters in (
            ("Snake", ([0.4, 1.3, 2.1],)), ("SnakeBeta", ([0.4, 1.3, 2.1], [1.2, 0.3, 0.7])),
        )
        for length, log_scale, arguments in (
            (17, True, {}),
            (1, False, {}),
            (9, False, {"up_ratio": 3, "down_ratio": 2, "down_kernel_size": 13}),
            (8, True, {"up_ratio": 4, "down_ratio": 4, "up_kernel_size": 24,
                       "down_kernel_size": 24}),
        )
    ),
    Call("bigvgan", "UpSample1d", (2, 3, 5), (), {"ratio": 3, "kernel_size": 11}),
    Call("bigvgan", "DownSample1d", (2, 3, 9), (), {"ratio": 4}),
    Call("bigvgan", "LowPassFilter1d", (2, 3, 9), (),
         {"cutoff": 0.2, "half_width": 0.1, "stride": 2, "padding_mode": "reflect",
          "kernel_size": 7}),
    Call("bigvgan", "LowPassFilter1d", (2, 3, 15), (), {"padding": False}),
    Call("bigvgan", "LowPassFilter1d", (2, 3, 9), (), {"padding_mode": "constant"}),
]  # fmt: skip

FILTERS = [
    (TAPS, {}),
    (TAPS, {"gain": 4.0, "separable": True}),
    (EIGHT, {"gain": 4.0, "flip_filter": True}),
    (EIGHT, {"separable": False}),
    (UNEVEN, {"normalize": False, "flip_filter": True, "gain": 2.0}),
    (None, {"gain": 3.0}),
    (2.0, {"normalize": False}),
]
KERNELS = [TAPS, UNEVEN, EIGHT, [0.1, 0.7]]


LINES_OF = {  # codes in the table of docs/migrating.md: folder, module, packages taken without init
    "antialiased-cnns": ("site", "antialiased_cnns.blurpool", ("antialiased_cnns",)),
    "timm": ("site", "timm.layers.blur_pool", ("timm", "timm.layers")),
    "kornia": ("site", "kornia.filters.blur_pool", ()),
    "k-diffusion": ("site", "k_diffusion.layers", ("k_diffusion",)),
    "EDM": ("edm", "training.networks", ()),
    "score_sde": ("score_sde", "models.up_or_down_sampling", ("models",)),
    "R3GAN": ("r3gan", "R3GAN.Resamplers", ("R3GAN",)),
    "diffusers": ("site", "diffusers.models.upsampling", ()),
}
PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()


class Line(NamedTuple):
    """A row of the table in ``docs/migrating.md``."""

    code: str
    theirs: str
    ours: str

    def shapes(self) -> list[tuple[int, ...]]:
        """Of images with even and with odd sides; or of signals."""
        sides = ((10,), (9,)) if "1D" in self.theirs else ((10, 8), (9, 7))
        return [(2, 2, *side) for side in sides]

    def name(self, shape: tuple[int, ...]) -> str:
        return f"{self.code}: {self.theirs} {shape}"

    def run(self, line: str, names: dict[str, Any], shape: tuple[int, ...]) -> torch.Tensor:
        """What ``line``, which is one of ours or of theirs, makes of random images."""
        x = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        value = eval(line, {**names, "torch": torch, "x": x, "channels": shape[1]})
        return value if isinstance(value, torch.Tensor) else value(x)


LINES = [
    Line(code, *re.findall("`(.*?)`", rest))
    for code, rest in re.findall(r"^\| ([\w-]+) \| (`.*`) \|$", PAGE, re.MULTILINE)
]


def layer(module: Any):
    """A module as a function of the image and the module's arguments."""
    return lambda image, **arguments: module(**arguments).to(image.dtype)(image)


def activation1d(module: Any, kind: str):
    """BigVGAN's activation as a function of the signals and of its parameters."""

    def run(image, *parameters, alpha_logscale, **arguments):
        act = vars(module)[kind](image.shape[1], alpha_logscale=alpha_logscale)
        whole = module.Activation1d(act, **arguments).to(image.dtype)
        names = [f"act.{name}" for name, _ in act.named_parameters()]
        given = {n: p.to(image.dtype) for n, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(whole, given, (image,))

    return run


def functions(module: Any) -> dict[str, Any]:
    """What :data:`CALLS` call, by name: layers become functions."""
    found = {
        name: layer(value) if isinstance(value, type) else value
        for name, value in vars(module).items()
        if callable(value)
    }
    for kind in ("Snake", "SnakeBeta"):
        if kind in found and "Activation1d" in found:
            found[f"Activation1d of {kind}"] = activation1d(module, kind)
    return found


CONSTANTS = {"mmcv.utils": {"IS_MUSA_AVAILABLE": False}}  # of an ``__init__`` that does not run


@contextmanager
def importable(folder: Path, *bare: str):
    """Import from a folder, without its ``__init__`` where named; leave ``sys`` as it was."""
    modules, path, load = dict(sys.modules), list(sys.path), cpp_extension.load
    cpp_extension.load = lambda *args, **kwargs: None  # nothing is compiled: the CPU needs nothing
    sys.path.insert(0, str(folder))
    if importlib.util.find_spec("pkg_resources") is None:  # stylegan3 asks it for torch's version
        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].parse_version = TorchVersion
    for name in bare:
        package = types.ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        vars(package).update(CONSTANTS.get(name, {}))
        sys.modules[name] = package
    try:
        yield
    finally:
        cpp_extension.load = load
        sys.path[:] = path
        for name in set(sys.modules) - set(modules):
            origins = [getattr(sys.modules[name], "__file__", None) or ""]
            origins += getattr(sys.modules[name], "__path__", [])
            if name == "pkg_resources" or any(o.startswith(str(folder)) for o in origins):
                del sys.modules[name]


def require_peers() -> str:
    """The folder of checkouts, or a test that is skipped."""
    require("PEERS", found="PEERS" in os.environ)
    return os.environ["PEERS"]


class Anything(types.ModuleType):
    """A module that a CPU does not need: whatever is asked of it is there, and says no."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args: False


PARTS: dict[
    str, Any
] = {  # what is imported, with packages whose ``__init__`` would import everything
    "rosinality": (("model", "op.upfirdn2d"), ()),
    "basicsr": (
        ("basicsr.archs.stylegan2_arch",),
        ("basicsr", "basicsr.archs", "basicsr.utils"),
    ),
    **dict.fromkeys(
        ("ada", "stylegan3"),
        (
            tuple(
                f"torch_utils.ops.{m}" for m in ("upfirdn2d", "bias_act", "conv2d_resample", "fma")
            ),
            (),
        ),
    ),
    "mmcv": (
        tuple(
            f"mmcv.ops.{m}"
            for m in ("upfirdn2d", "bias_act", "filtered_lrelu", "fused_bias_leakyrelu")
        ),
        ("mmcv", "mmcv.ops", "mmcv.utils"),
    ),
}
PARTS["stylegan3"] = (*PARTS["stylegan3"][0], "torch_utils.ops.filtered_lrelu"), ()
ALIAS_FREE = {  # packages in the folder ``site``, whose modules are taken together
    "bigvgan": (
        ("bigvgan.alias_free_activation.torch.act", "bigvgan.activations",
         "bigvgan.alias_free_activation.torch.resample",
         "bigvgan.alias_free_activation.torch.filter"),
        ("bigvgan", "bigvgan.alias_free_activation"),
    ),
    "alias_free_torch": (("alias_free_torch",), ()),
}  # fmt: skip
ABSENT = {
    "bigvgan": ("librosa", "librosa.filters"),
    "k-diffusion": ("dctorch", "einops", "k_diffusion.sampling", "k_diffusion.utils"),
    "mmcv": (
        "mmcv._ext",
        "mmengine",
        "mmengine.device",
        "mmengine.utils",
        "mmengine.utils.dl_utils",
        "mmengine.utils.dl_utils.parrots_wrapper",
    ),
}


def load(peers: str) -> dict[str, Any]:
    """The originals' functions on the CPU, by the name of the checkout, of those that are there."""
    found: dict[str, Any] = {}
    for name, (parts, bare) in PARTS.items():
        folder = Path(peers) / name
        if not folder.exists():
            continue
        with importable(folder, *bare), pretended(name):
            found[name] = {}
            for part in parts:
                found[name] |= functions(importlib.import_module(part))
                found[name] |= {
                    k: v for k, v in vars(sys.modules[part]).items() if k == "activation_funcs"
                }
    for name, (parts, bare) in ALIAS_FREE.items():
        site = Path(peers) / "site"
        if (site / name).exists():
            with importable(site, *bare):
                modules = [vars(importlib.import_module(part)) for part in parts]
            names = {k: v for module in modules for k, v in module.items() if k[0] != "_"}
            found[name] = functions(types.SimpleNamespace(**names))
    return found


@contextmanager
def names_of(peers: str, code: str):
    """What the module of a code in :data:`LINES` holds; None: it is not there."""
    folder, module, bare = LINES_OF[code]
    path = Path(peers) / folder
    if not path.joinpath(*module.split(".")).with_suffix(".py").exists():
        yield None
        return
    with importable(path, *bare), pretended(code):
        yield vars(importlib.import_module(module))


@contextmanager
def pretended(name: str):
    """Modules that the CPU does not need are there, where they are absent."""
    absent = {m: Anything(m) for m in ABSENT.get(name, ()) if m not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for module in absent:
            sys.modules.pop(module, None)
