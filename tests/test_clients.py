# SPDX-License-Identifier: BSD-3-Clause
"""Codes that call the op, before and after the change of ``docs/migrating.md``.

Equal outputs and equal gradients, checkpoints both ways. The commands are taken from the page and
run, as they stand, on copies of complete checkouts, and on small trees with every way to import
that people write. Where a client is not installed, or ``PEERS`` (see ``compat_originals``) names no
complete checkout, the summary says NOT RUN; ``RESAMPLE_LAYERS_REQUIRE=kornia,PEERS`` makes it an
error.
"""

import ast
import importlib
import importlib.util
import io
import os
import pickle
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import resample_layers
from resample_layers import UpFirDnDownsample, filters
from resample_layers.compat import basicsr, nvidia, rosinality
from resample_layers.ops import upfirdn2d

from . import compat_originals
from .compat_originals import LINES, importable
from .tools import require

PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()
# What clients do beside our op
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


def example(heading, language, having=""):
    """The block of a section of the page that is no doctest, and has these words in it."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(rf"```{language}\n(?!>>>)(.*?)\n```", section, re.DOTALL)
    (block,) = [block for block in blocks if having in block]
    return block


def commit(root):
    """Let git keep all files as they are."""
    name = ("-c", "user.name=n", "-c", "user.email=e", "-c", "core.autocrlf=false")
    for arguments in (["init", "-q"], ["add", "-Af"], [*name, "commit", "-qm", "all"]):
        subprocess.run([require("git"), *arguments], cwd=root, check=True)


def migrate(root, heading, *options, refused=False, **environment):
    """Run the command of the page; what it printed."""
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    package = str(Path(resample_layers.__file__).parent.parent)
    run = subprocess.run(
        ["bash", "-c", f"{python}{example(heading, 'sh')} {' '.join(options)}"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == refused, run.stdout + run.stderr
    return run.stderr if refused else run.stdout


@contextmanager
def chdir(folder):
    """``contextlib.chdir``, which Python 3.10 lacks."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


COMPARE = "note: only names were compared, no formulas: compare results before and after\n"


def migrate_quickly(root, heading, *options, refused=False):
    """The same in this process, where torch is imported already."""
    python, option, module, *arguments = [*shlex.split(example(heading, "sh")), *options]
    assert (python, option) == ("python", "-m")
    out, err = io.StringIO(), io.StringIO()
    with chdir(root), redirect_stdout(out), redirect_stderr(err):
        assert importlib.import_module(module).main(arguments) == refused, err.getvalue()
    return err.getvalue() if refused else out.getvalue()


def client(name):
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    require(name, found=spec is not None)
    return Path(spec.submodule_search_locations[0])


COMPLETE = {  # what a complete checkout has
    "rosinality": "train.py",
    "basicsr": "setup.py",
    "gfpgan": "setup.py",
    "ada": "legacy.py",
    "stylegan3": "viz/renderer.py",
    "gpen": "face_model/gpen_model.py",
    "lia": "networks/styledecoder.py",
}


def checkout(name):
    """The folder of a complete checkout."""
    folder = Path(compat_originals.require_peers()) / name
    require(f"complete checkout {name} in PEERS", found=(folder / COMPLETE[name]).exists())
    return folder


def copied(name, root):
    """A copy of a checkout, without what is no code, as git keeps it."""
    left = shutil.ignore_patterns(".git", "*.pyc", "*.png", "*.jpg", "*.gif", "*.pdf", "sample")
    folder = Path(shutil.copytree(checkout(name), root / name, ignore=left))
    commit(folder)
    return folder


def flat(out):
    """All tensors of an output."""
    if isinstance(out, torch.Tensor):
        return [out]
    return [t for part in out or () for t in flat(part)]


def assert_same(before, after, *inputs, second_order=False, rtol=1e-4, noise=0.3, **arguments):
    """Checkpoints both ways, outputs, gradients of inputs and parameters, and R1's."""
    with torch.no_grad():  # nothing at zero, where an error hides
        for p in before.parameters():
            p.copy_(torch.randn_like(p) * noise + p)
    after.load_state_dict(before.state_dict())
    before.load_state_dict(after.state_dict())
    results = []
    for model in (before, after):
        given = [x.clone().requires_grad_() for x in inputs]
        outs = flat(model(*given, **arguments))
        loss = sum(out.square().mean() for out in outs)
        if second_order:
            grads = torch.autograd.grad(loss, given, create_graph=True)
            loss = loss + sum(g.square().sum() for g in grads)
        wrt = [*given, *(p for p in model.parameters() if p.requires_grad)]
        grads = torch.autograd.grad(loss, wrt, allow_unused=True)
        results.append([*outs, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1]) > 1
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(y, x, rtol=rtol, atol=1e-5 * max(1e-3, x.abs().max().item()))


class Unlisted(torch.nn.Module):
    """A generator that takes one tensor of styles, and draws no noise."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, style):
        return self.net([style], randomize_noise=False)[0]


# diffusers


@pytest.mark.parametrize("convolve", [False, True])
@pytest.mark.parametrize("name", ["FirUpsample2D", "FirDownsample2D", "ResnetBlock2D"])
@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 5, 3)])
def test_diffusers(name, taps, convolve, monkeypatch):
    client("diffusers")
    downsampling = importlib.import_module("diffusers.models.downsampling")
    upsampling = importlib.import_module("diffusers.models.upsampling")
    resnet = importlib.import_module("diffusers.models.resnet")
    if name == "ResnetBlock2D":
        arguments = {"in_channels": 4, "temb_channels": None, "groups": 2, "kernel": "fir"}
        block = resnet.ResnetBlock2D(**arguments, up=convolve, down=not convolve)
        inputs = (torch.randn(2, 4, 6, 8), None)
    else:
        module = upsampling if name == "FirUpsample2D" else downsampling
        block = getattr(module, name)(4, 6, use_conv=convolve, fir_kernel=taps)
        inputs = (torch.randn(2, 4, 6, 8),)
    calls = []

    def run():
        x = inputs[0].clone().requires_grad_()
        out = block(x, *inputs[1:])
        wrt = [x, *block.parameters()]
        return [out, *torch.autograd.grad(out.square().sum(), wrt, allow_unused=True)]

    function = basicsr.upfirdn2d

    def ours(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    before = run()
    for module in (upsampling, downsampling):  # to have it back
        monkeypatch.setattr(module, "upfirdn2d_native", module.upfirdn2d_native)
    monkeypatch.setattr(basicsr, "upfirdn2d", ours)
    exec(example("diffusers", "python"), {})
    after = run()
    assert calls  # the change is the one that counts
    for x, y in zip(before, after, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-5 * x.abs().max().item())


# BasicSR and GFPGAN: their packages do not import beside today's torchvision, their architectures
# do, without the packages' ``__init__``, which import everything

BARE = ("basicsr", "basicsr.archs", "basicsr.utils", "gfpgan", "gfpgan.archs")


def architectures(root):
    with importable(root, *BARE):
        return (
            importlib.import_module("basicsr.archs.stylegan2_arch"),
            importlib.import_module("gfpgan.archs.gfpganv1_arch"),
        )


@pytest.fixture(scope="module")
def basicsr_pair(tmp_path_factory):
    """BasicSR's and GFPGAN's architectures before and after the change, in each checkout."""
    roots = [tmp_path_factory.mktemp(name) for name in ("before", "after")]
    for name in ("basicsr", "gfpgan"):
        folder = copied(name, tmp_path_factory.mktemp(name))
        shutil.copytree(folder / name, roots[0] / name)
        migrate(folder, "BasicSR")
        shutil.copytree(folder / name, roots[1] / name)
    before, after = (architectures(root) for root in roots)

    def activation(input, bias, negative_slope=0.2, scale=2**0.5):
        bias = bias.reshape(1, -1, *(1,) * (input.dim() - 2))
        return scale * F.leaky_relu(input + bias, negative_slope)

    with pytest.raises(NameError, match="fused_act_ext"):  # it has none for the CPU
        before[0].FusedLeakyReLU(3)(torch.ones(1, 3))
    before[0].fused_leaky_relu = activation
    before[0].FusedLeakyReLU.forward.__globals__["fused_leaky_relu"] = activation
    return before, after


def test_basicsr_s_generator(basicsr_pair):
    before, after = (
        modules[0].StyleGAN2Generator(32, 8, num_mlp=2, channel_multiplier=1, narrow=0.03)
        for modules in basicsr_pair
    )
    assert_same(Unlisted(before), Unlisted(after), torch.randn(2, 8), second_order=True)


def test_basicsr_s_discriminator(basicsr_pair):
    before, after = (
        modules[0].StyleGAN2Discriminator(32, channel_multiplier=1, narrow=0.03)
        for modules in basicsr_pair
    )
    assert_same(before, after, torch.randn(4, 3, 32, 32), second_order=True)


def test_gfpgan(basicsr_pair):
    before, after = (
        modules[1].GFPGANv1(
            32, 8, 1, num_mlp=2, narrow=0.06, different_w=True, input_is_latent=True,
            fix_decoder=False,
        )
        for modules in basicsr_pair
    )  # fmt: skip
    assert_same(before, after, torch.randn(1, 3, 32, 32), randomize_noise=False)


def test_basicsr_s_layers_by_ours(basicsr_pair):
    """The three layers of the architecture file, replaced as well."""
    theirs = basicsr_pair[0][0]
    x = torch.randn(2, 3, 8, 6)
    for name, arguments in (
        ("UpFirDnUpsample", ([1, 2, 4, 3], 2)),
        ("UpFirDnDownsample", ([1, 2, 5, 1], 2)),
        ("UpFirDnSmooth", ([1, 3, 3, 1], 2, 1, 3)),
        ("UpFirDnSmooth", ([1, 2, 5, 1], 1, 2, 3)),
    ):
        ours = getattr(basicsr, name)(*arguments)
        torch.testing.assert_close(ours(x), getattr(theirs, name)(*arguments)(x))


# kornia, timm


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_kornia_s_blur_pool(size, stride):
    client("kornia")
    blur = importlib.import_module("kornia.filters").BlurPool2D(size, stride)
    row = filters.NAMED_TAPS[f"binomial{size}"]
    taps = torch.tensor(row) / sum(row)
    x = torch.randn(2, 3, 9, 8).requires_grad_()
    y = x.detach().clone().requires_grad_()
    theirs = blur(x)
    ours = upfirdn2d(y, taps, down=stride, pad=((size - 1) // 2, size // 2))
    torch.testing.assert_close(ours, theirs)
    grads = (torch.autograd.grad(out.sin().sum(), z)[0] for out, z in ((ours, y), (theirs, x)))
    torch.testing.assert_close(*grads)


LINE_BY_LINE = "Layers of other codes, line by line"
FIXTURES = np.load(Path(__file__).parent / "compat_fixtures.npz")


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_timm_s_blur_pool(size, mode):
    client("timm")
    pool = importlib.import_module("timm.layers").BlurPool2d(3, size, 2, pad_mode=mode)
    taps = filters.NAMED_TAPS[f"binomial{size}"]
    ours = UpFirDnDownsample(taps, 2, "zeros" if mode == "constant" else mode, ceil_mode=True)
    for sides in ((10, 8), (9, 7)):
        assert_same(pool, ours, torch.randn(2, 3, *sides))


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_timm_s_even_blur_pool(mode):
    client("timm")
    pool = importlib.import_module("timm.layers").BlurPool2d(3, 4, 2, pad_mode=mode)
    taps = torch.tensor(filters.NAMED_TAPS["binomial4"]) / 8
    x = torch.randn(1, 3, 9, 8)
    ours = upfirdn2d(F.pad(x, (2, 2, 2, 2), mode), taps, down=2)
    torch.testing.assert_close(ours, pool(x))


def test_the_class_for_timm():
    """It takes timm's arguments, and gives what timm's pool gave, without timm here."""
    names = {}
    exec(example(LINE_BY_LINE, "python", "class Blur").split("\nmodel = ")[0], names)
    (line,) = [line for line in LINES if line.theirs == "BlurPool2d(channels)"]
    for shape in line.shapes():
        expected = torch.from_numpy(FIXTURES[line.name(shape)])
        for call in ("Blur(channels)", "Blur(channels, stride=2, device=None, dtype=None)"):
            torch.testing.assert_close(line.run(call, names, shape), expected)


def test_a_resnet_of_timm():
    client("timm")
    timm = importlib.import_module("timm")
    theirs, names = timm.create_model("resnet18", aa_layer=timm.layers.BlurPool2d), {"timm": timm}
    exec(example(LINE_BY_LINE, "python", "class Blur"), names)
    ours = names["model"]
    assert sum(isinstance(m, UpFirDnDownsample) for m in ours.modules()) >= 3
    assert_same(theirs.eval(), ours.eval(), torch.randn(1, 3, 64, 64))


# Checkouts: rosinality, StyleGAN2-ADA, StyleGAN3

NVIDIA = "NVIDIA: StyleGAN2-ADA and StyleGAN3"
BIGVGAN = "BigVGAN"


def pair(tmp_path, name, heading, module, build):
    """What ``build`` makes of a module of a checkout, as it is and after the change."""
    copy = copied(name, tmp_path)
    migrate(copy, heading)
    built = []
    for root in (checkout(name), copy):
        with importable(root):
            built.append(build(importlib.import_module(module)))
    return zip(*built, strict=True)


def test_rosinality(tmp_path):
    generators, discriminators = pair(
        tmp_path,
        "rosinality",
        "rosinality",
        "model",
        lambda m: (
            m.Generator(8, 8, 1, channel_multiplier=1),
            m.Discriminator(8, channel_multiplier=1),
        ),
    )
    assert_same(*map(Unlisted, generators), torch.randn(2, 8), second_order=True)
    assert_same(*discriminators, torch.randn(2, 3, 8, 8), second_order=True)


def test_gpen(tmp_path):
    """It passes a ``device`` to each function."""
    copy = copied("gpen", tmp_path)
    migrate(copy, "rosinality")
    assert not (copy / "face_model" / "op").exists()
    models = []
    for root in (checkout("gpen"), copy):
        with importable(root / "face_model"):
            module = importlib.import_module("gpen_model")
            models.append(module.Discriminator(8, channel_multiplier=1, narrow=0.05, device="cpu"))
    assert_same(*models, torch.randn(4, 3, 8, 8), second_order=True)


LIA = example("rosinality", "python", "FusedLeakyReLU")


def test_lia(monkeypatch):
    """The line of the page in place of its functions; its bias is ``[1, C, 1, 1]``."""
    with importable(checkout("lia")):
        module = importlib.import_module("networks.styledecoder")
        theirs = module.StyledConv(4, 6, 3, 8, upsample=True)
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, value)  # to have it back
        exec(LIA, vars(module))
        ours = module.StyledConv(4, 6, 3, 8, upsample=True)
        with torch.no_grad():
            theirs.activate.bias.normal_()
        assert theirs.activate.bias.shape == (1, 6, 1, 1)
        ours.load_state_dict(theirs.state_dict())
        image, style = torch.randn(2, 4, 5, 6), torch.randn(2, 8)
        results = []
        for net in (ours, theirs):
            x = image.clone().requires_grad_()
            out = net(x, style)
            results.append([out, *torch.autograd.grad(out.pow(3).mean(), (x, net.activate.bias))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-4, atol=1e-6)


def test_the_line_for_codes_that_keep_the_functions():
    names = {}
    exec(LIA, names)
    for name in ("FusedLeakyReLU", "fused_leaky_relu", "upfirdn2d"):
        assert names[name] is getattr(rosinality, name)


@pytest.mark.parametrize(
    ("name", "module"), [("ada", "training.networks"), ("stylegan3", "training.networks_stylegan2")]
)
def test_nvidia(name, module, tmp_path):
    small = {
        "img_resolution": 16, "img_channels": 3, "channel_base": 128, "channel_max": 8,
        "num_fp16_res": 0,
    }  # fmt: skip

    def build(m):
        for architecture in ("skip", "resnet"):
            yield m.SynthesisNetwork(8, **small, architecture=architecture)
            yield m.Discriminator(0, **small, architecture=architecture)

    models = list(pair(tmp_path, name, NVIDIA, module, lambda m: list(build(m))))
    for generators, discriminators in (models[:2], models[2:]):
        styles = torch.randn(2, generators[0].num_ws, 8)
        assert_same(*generators, styles, second_order=True, noise_mode="const")
        image = torch.randn(4, 3, 16, 16)
        assert_same(*discriminators, image, second_order=True, c=None)


@pytest.mark.parametrize("name", ["ada", "stylegan3"])
def test_nvidia_s_augmentation(name, tmp_path):
    """Separable wavelets, gains, crops and ``conv2d_gradfix``; all but the noise."""
    every = ("rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "imgfilter", "cutout")

    def build(m):
        return [m.AugmentPipe(**dict.fromkeys(every, 1)).requires_grad_(False)]

    (pipes,) = pair(tmp_path, name, NVIDIA, "training.augment", build)
    image = torch.randn(2, 3, 32, 32)
    assert_same(*pipes, image, debug_percentile=0.7)


def test_stylegan3_s_alias_free_network(tmp_path):
    """T and R: every layer activates by our ``filtered_lrelu``, and nothing is left to compile."""
    small = {"img_channels": 3, "channel_base": 512, "channel_max": 8, "num_layers": 4}

    def build(m):
        for radial in (False, True):
            net = m.SynthesisNetwork(
                8, 16, **small, num_critical=1, num_fp16_res=0, margin_size=4,
                use_radial_filters=radial,
            )  # fmt: skip
            yield net.eval()

    for models in pair(tmp_path, "stylegan3", NVIDIA, "training.networks_stylegan3",
                       lambda m: list(build(m))):  # fmt: skip
        styles = torch.randn(2, models[0].num_ws, 8)
        assert_same(*models, styles, second_order=True, update_emas=False)
    ops = tmp_path / "stylegan3" / "torch_utils" / "ops"
    assert {path.name for path in ops.iterdir()} == {"__init__.py", "grid_sample_gradfix.py"}


@pytest.mark.parametrize(
    ("name", "module"), [("ada", "training.networks"), ("stylegan3", "training.networks_stylegan2")]
)
def test_nvidia_s_pickles(name, module, tmp_path):
    """They hold the source of their classes, which imports what the change deletes."""
    copy = copied(name, tmp_path)
    migrate(copy, NVIDIA)
    z, file = torch.randn(2, 8), tmp_path / "network.pkl"
    with importable(checkout(name)):
        small = {"channel_base": 128, "channel_max": 8, "num_fp16_res": 0}
        nested = {"synthesis_kwargs": small} if name == "ada" else small
        net = importlib.import_module(module).Generator(8, 0, 8, 16, 3, **nested).eval()
        expected = net(z, None, noise_mode="const")
        everything = {"G": net, "D": net, "G_ema": net, "training_set_kwargs": None}
        file.write_bytes(pickle.dumps({**everything, "augment_pipe": None}))
    with importable(copy), file.open("rb") as f:
        legacy = importlib.import_module("legacy")
        with pytest.raises(ImportError, match=r"torch_utils\.ops"):
            legacy.load_network_pkl(f)
    with importable(copy):
        legacy = importlib.import_module("legacy")
        exec(example(NVIDIA, "python", "sys.modules"), {})
        try:
            with file.open("rb") as f:
                found = legacy.load_network_pkl(f)["G_ema"]
        finally:
            for part in [n for n in sys.modules if n.startswith("torch_utils.ops.")]:
                del sys.modules[part]
        out = found(z, None, noise_mode="const")
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_the_lines_for_pickles(tmp_path):
    """What a pickled class imports is ours after them, without NVIDIA's code here."""
    tree(tmp_path, "\n", {"torch_utils/ops/__init__.py": "", "torch_utils/__init__.py": ""})
    modules = (
        "bias_act", "conv2d_gradfix", "conv2d_resample", "filtered_lrelu", "fma", "upfirdn2d",
    )  # fmt: skip
    names = {}
    with importable(tmp_path):
        exec(example(NVIDIA, "python", "sys.modules"), {})
        try:
            exec(f"from torch_utils.ops import {', '.join(modules)}", names)
        finally:
            for module in modules:
                del sys.modules[f"torch_utils.ops.{module}"]
    assert all(names[module] is nvidia for module in modules)


def test_stylegan3_without_pkg_resources(tmp_path):
    """The line that the command tells and the page shows, where setuptools has dropped it."""
    copy = copied("stylegan3", tmp_path)
    told = "by hand: torch_utils/ops/grid_sample_gradfix.py:15: setuptools 82 dropped pkg_resources"
    line = example(NVIDIA, "python", "TorchVersion")
    assert f"{told}; write instead: {line}\n" in migrate(copy, NVIDIA)
    path = copy / "torch_utils" / "ops" / "grid_sample_gradfix.py"
    text = path.read_text()
    path.write_text(text.replace("from pkg_resources import parse_version", line))
    assert path.read_text() != text
    run = "import sys, torch_utils.ops.grid_sample_gradfix; print('pkg_resources' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=copy)
    assert done.stdout == "False\n", done.stderr


# BigVGAN, as its package on the index has it


@pytest.fixture(scope="module")
def bigvgan_pair(tmp_path_factory):
    """The package's generator before and after the change."""
    client("huggingface_hub")
    site = Path(compat_originals.require_peers()) / "site"
    require("bigvgan in PEERS/site", found=(site / "bigvgan").exists())
    root = tmp_path_factory.mktemp("bigvgan")
    shutil.copytree(site / "bigvgan", root / "bigvgan", ignore=shutil.ignore_patterns("*.pyc"))
    commit(root)
    migrate(root, BIGVGAN)
    assert not (root / "bigvgan" / "alias_free_activation").exists()
    assert not (root / "bigvgan" / "activations.py").exists()
    modules = []
    for folder in (site, root):
        with importable(folder, "bigvgan"), compat_originals.pretended("bigvgan"):
            modules.append(importlib.import_module("bigvgan.bigvgan"))
    return modules


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("activation", "log_scale", "block"),
    [("snake", True, "1"), ("snakebeta", True, "2"), ("snakebeta", False, "2")],
)
def test_bigvgan_s_generator(bigvgan_pair, activation, log_scale, block, fused):
    """Outputs, gradients of the mel and of every parameter; ``use_cuda_kernel`` on the CPU."""
    settings = {
        "num_mels": 8, "upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4],
        "upsample_initial_channel": 16, "resblock": block, "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]], "activation": activation,
        "snake_logscale": log_scale, "use_tanh_at_final": False, "use_bias_at_final": False,
    }  # fmt: skip
    theirs, ours = bigvgan_pair
    before = theirs.BigVGAN(theirs.AttrDict(settings))
    after = ours.BigVGAN(ours.AttrDict(settings), use_cuda_kernel=fused)
    assert_same(before, after, torch.randn(2, 8, 5), rtol=1e-5, noise=0.1)


# The command


def dotted(path):
    """The name of a module by its path."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def modules(root):
    return {dotted(path.relative_to(root)) for path in root.rglob("*.py")}


def imported(root, name):
    """All that a module imports; relative names are resolved from the root."""
    path = root.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    home = path.parent.relative_to(root).parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = home[: len(home) + 1 - node.level] if node.level else ()
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def dangling(root, names, deleted):
    """What these modules import of the deleted ones."""
    return {f"{name}: {target}" for name in names for target in imported(root, name)
            if target in deleted}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "heading", "least"),
    [
        ("rosinality", "rosinality", 4),
        ("basicsr", "BasicSR", 2),
        ("ada", NVIDIA, 4),
        ("stylegan3", NVIDIA, 8),
    ],
)
def test_nothing_left_imports_what_was_deleted(name, heading, least, tmp_path):
    copy = copied(name, tmp_path)
    before = modules(copy)
    (tmp_path / "untouched").mkdir()
    original = copied(name, tmp_path / "untouched")
    printed = migrate(copy, heading)
    left = modules(copy)
    assert left < before
    broken = dangling(original, left, before - left)
    assert len({entry.split(":")[0] for entry in broken}) >= least  # the check sees them
    assert not dangling(copy, left, before - left)
    for path in copy.rglob("*"):  # nor does a build
        assert not (path.suffix in (".cu", ".cpp") and re.match("upfirdn2d|.*bias_act", path.name))
    if name == "basicsr":
        told = re.findall(r"by hand: setup.py:\d+: remove '(.*)', which is deleted", printed)
        assert {"basicsr.ops.fused_act", "src/fused_bias_act.cpp", "src/upfirdn2d.cpp"} < set(told)
        assert not [name for name in told if "deform_conv" in name]


def test_gfpgan_imports_ours(tmp_path):
    """Nothing to delete there: BasicSR is another package."""
    copy = copied("gfpgan", tmp_path)
    before = modules(copy)
    printed = migrate(copy, "BasicSR")
    assert modules(copy) == before
    assert printed.count("from resample_layers.compat.basicsr import") >= 2
    ops = {t for name in before for t in imported(copy, name) if t.startswith("basicsr.ops.fused")}
    assert not ops


OP = {
    "__init__.py": "from .fused_act import FusedLeakyReLU, fused_leaky_relu\n"
    "from .upfirdn2d import upfirdn2d\n",
    "fused_act.py": "class FusedLeakyReLU: ...\nfused_leaky_relu = None\n",
    "upfirdn2d.py": "upfirdn2d = None\n",
    "conv2d_gradfix.py": "conv2d = None\n",
    "upfirdn2d.cpp": "",
    "upfirdn2d_kernel.cu": "",
}
TORCH_UTILS = {
    "__init__.py": "# empty\n",
    **{f"{m}.py": "from . import upfirdn2d\nfrom .. import misc\n" for m in (
        "bias_act", "conv2d_gradfix", "conv2d_resample", "fma", "filtered_lrelu",
    )},
    "upfirdn2d.py": "_parse_padding = setup_filter = None\n",
    "grid_sample_gradfix.py": "enabled = False\n",
    "upfirdn2d.cu": "", "bias_act.h": "", "filtered_lrelu.cu": "", "filtered_lrelu.h": "",
    **{f"filtered_lrelu_{part}.cu": "" for part in ("ns", "rd", "wr")}, "filtered_lrelu.cpp": "",
}  # fmt: skip


def tree(root, newline, files):
    """Write files by path; a value may be a folder's worth of them."""
    for name, text in files.items():
        path = root / name
        if isinstance(text, dict):
            tree(path, newline, text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.replace("\n", newline).encode())


def contents(root):
    """All files but git's."""
    return {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


ALIAS_FREE_TORCH = {
    "__init__.py": "from .filter import *\nfrom .resample import *\nfrom .act import *\n",
    "act.py": "from torch import nn\nfrom .resample import UpSample1d\nclass Activation1d: ...\n",
    "filter.py": "import math, torch\ndef sinc(x): ...\ndef kaiser_sinc_filter1d(): ...\n"
    "class LowPassFilter1d: ...\n",
    "resample.py": "from .filter import LowPassFilter1d\nclass UpSample1d: ...\n"
    "class DownSample1d: ...\n",
}  # fmt: skip
ALIAS_FREE_ACTIVATION = {
    "torch": ALIAS_FREE_TORCH,
    "cuda": {
        "__init__.py": "", "activation1d.py": "from ..torch.resample import UpSample1d\n",
        "load.py": "", "anti_alias_activation.cpp": "", "anti_alias_activation_cuda.cu": "",
    },
}  # fmt: skip
SNAKES = "import torch\nclass Snake: ...\nclass SnakeBeta: ...\n"
COMPAT = "resample_layers.compat"
MIGRATED = {  # heading: files, what becomes of their lines, what is left beside them
    "rosinality": (
        {
            "op": OP,
            "model.py": "from op import FusedLeakyReLU, upfirdn2d, conv2d_gradfix  # noqa\n",
            "net/deep.py": "from op.upfirdn2d import upfirdn2d as up\nfrom op import *\n",
            "net/late.py": "def f():\n    import op\n    return op.upfirdn2d\n",
            "net/one.py": "try: from op import upfirdn2d\nexcept ImportError: pass\n",
            "net/more.py": "from op import (  # ours\n    fused_leaky_relu, upfirdn2d)\nx = 1\n",
            "net/other.py": "import optparse, os\nfrom operator import add\nfrom . import deep\n",
        },
        {
            "model.py": f"from {COMPAT}.rosinality import FusedLeakyReLU, upfirdn2d, "
            "conv2d_gradfix  # noqa\n",
            "net/deep.py": f"from {COMPAT}.rosinality import upfirdn2d as up\n"
            f"from {COMPAT}.rosinality import FusedLeakyReLU, fused_leaky_relu, upfirdn2d\n",
            "net/late.py": f"def f():\n    from {COMPAT} import rosinality as op\n"
            "    return op.upfirdn2d\n",
            "net/one.py": f"try: from {COMPAT}.rosinality import upfirdn2d\n"
            "except ImportError: pass\n",
            "net/more.py": f"from {COMPAT}.rosinality import fused_leaky_relu, upfirdn2d\nx = 1\n",
            "net/other.py": "import optparse, os\nfrom operator import add\nfrom . import deep\n",
        },
    ),
    "rosinality, below a folder": (
        {
            "models/gan/op": OP,
            "models/gan/net.py": "from .op import upfirdn2d\nfrom . import op\n",
            "models/encoder/net.py": "from ..gan.op.fused_act import FusedLeakyReLU\n",
            "train.py": "from models.gan.op import fused_leaky_relu\n"
            "from models.gan import op, x\n",
            "models/gan/play.py": "from op.conv2d_gradfix import conv2d\n",
            "models/other/op/__init__.py": "upfirdn2d = None\n",
            "models/other/net.py": "from .op import upfirdn2d\n",
        },
        {
            "models/gan/net.py": f"from {COMPAT}.rosinality import upfirdn2d\n"
            f"from {COMPAT} import rosinality as op\n",
            "models/encoder/net.py": f"from {COMPAT}.rosinality import FusedLeakyReLU\n",
            "train.py": f"from {COMPAT}.rosinality import fused_leaky_relu\n"
            f"from models.gan import x\nfrom {COMPAT} import rosinality as op\n",
            "models/gan/play.py": f"from {COMPAT}.conv2d_gradfix import conv2d\n",
            "models/other/op/__init__.py": "upfirdn2d = None\n",
            "models/other/net.py": "from .op import upfirdn2d\n",
        },
    ),
    "rosinality, with a module of their own": (
        {
            "op": {**OP, "warp.py": "from .upfirdn2d import upfirdn2d\n"},
            "model.py": "from op import warp, upfirdn2d\n",
            "all.py": "from op import *\n",
            "b.py": "import op, op.warp\nop.upfirdn2d, op.warp.x\n",
        },
        {
            "op/__init__.py": f"from {COMPAT}.rosinality import FusedLeakyReLU, fused_leaky_relu\n"
            f"from {COMPAT}.rosinality import upfirdn2d\n",
            "op/warp.py": f"from {COMPAT}.rosinality import upfirdn2d\n",
            "model.py": f"from op import warp\nfrom {COMPAT}.rosinality import upfirdn2d\n",
            "all.py": "from op import *\n",
            "b.py": "import op, op.warp\nop.upfirdn2d, op.warp.x\n",
        },
    ),
    "BasicSR": (
        {
            "basicsr/ops/__init__.py": "",
            "basicsr/ops/dcn/__init__.py": "",
            **{f"basicsr/ops/{m}": {"__init__.py": "", f"{m}.py": "", f"src/{m}.cpp": ""} for m in (
                "fused_act", "upfirdn2d",
            )},
            "basicsr/__init__.py": "from .ops import *\n",
            "basicsr/archs/a.py": "from basicsr.ops.fused_act import FusedLeakyReLU\n"
            "from basicsr.ops.upfirdn2d.upfirdn2d import upfirdn2d\n"
            "from basicsr.ops import fused_act as act\nfrom ..ops.dcn import x\n"
            "from basicsr.ops.dcn import ModulatedDeformConvPack\n",
            "setup.py": "ext_modules = [\n    ext(name='dcn', module='basicsr.ops.dcn'),\n"
            "    ext(name='a', module='basicsr.ops.fused_act', sources=['fused_act.cpp']),\n"
            "    ext('b', ['basicsr/ops/upfirdn2d/src/upfirdn2d.cpp'])]\n",
        },
        {
            "basicsr/ops/__init__.py": "",
            "basicsr/ops/dcn/__init__.py": "",
            "basicsr/__init__.py": "from .ops import *\n",
            "basicsr/archs/a.py": f"from {COMPAT}.basicsr import FusedLeakyReLU\n"
            f"from {COMPAT}.basicsr import upfirdn2d\n"
            f"from {COMPAT} import basicsr as act\nfrom ..ops.dcn import x\n"
            "from basicsr.ops.dcn import ModulatedDeformConvPack\n",
            "setup.py": "ext_modules = [\n    ext(name='dcn', module='basicsr.ops.dcn'),\n"
            "    ext(name='a', module='basicsr.ops.fused_act', sources=['fused_act.cpp']),\n"
            "    ext('b', ['basicsr/ops/upfirdn2d/src/upfirdn2d.cpp'])]\n",
        },
    ),
    "BasicSR, installed": (
        {"gfpgan/archs/a.py": "from basicsr.ops.fused_act import FusedLeakyReLU, other\n"},
        {
            "gfpgan/archs/a.py": "from basicsr.ops.fused_act import other\n"
            f"from {COMPAT}.basicsr import FusedLeakyReLU\n",
        },
    ),
    NVIDIA: (
        {
            "torch_utils/ops": TORCH_UTILS,
            "torch_utils/misc.py": "",
            "training/networks.py": "from torch_utils.ops import upfirdn2d\n"
            "from torch_utils.ops import filtered_lrelu, bias_act as ba, fma\n"
            "ba.activation_funcs['lrelu'].def_gain\n",
            "training/loss.py": "from torch_utils.ops import conv2d_gradfix\n"
            "conv2d_gradfix.enabled = True\n",
            "viz/renderer.py": "import torch_utils.ops.upfirdn2d as u\n"
            "from torch_utils.ops.upfirdn2d import setup_filter\n"
            "import os, torch_utils.ops.grid_sample_gradfix\n",
        },
        {
            "torch_utils/ops/__init__.py": "# empty\n",
            "torch_utils/ops/grid_sample_gradfix.py": "enabled = False\n",
            "torch_utils/misc.py": "",
            "training/networks.py": f"from {COMPAT} import nvidia as upfirdn2d\n"
            f"from {COMPAT} import nvidia as filtered_lrelu, nvidia as ba, nvidia as fma\n"
            "ba.activation_funcs['lrelu'].def_gain\n",
            "training/loss.py": f"from {COMPAT} import nvidia as conv2d_gradfix\n"
            "conv2d_gradfix.enabled = True\n",
            "viz/renderer.py": f"from {COMPAT} import nvidia as u\n"
            f"from {COMPAT}.nvidia import setup_filter\n"
            "import os, torch_utils.ops.grid_sample_gradfix\n",
        },
    ),
    BIGVGAN: (
        {
            "alias_free_activation": ALIAS_FREE_ACTIVATION,
            "activations.py": SNAKES,
            "bigvgan.py": "import activations\n"
            "from alias_free_activation.torch.act import Activation1d as TorchActivation1d\n"
            "def f(cuda):\n    if cuda:\n"
            "        from alias_free_activation.cuda.activation1d import (\n"
            "            Activation1d as CudaActivation1d,\n        )\n"
            "    return activations.Snake(3, alpha_logscale=True)\n",
            "tests/test_activation.py": "import alias_free_activation\n"
            "from alias_free_activation.cuda import activation1d\n"
            "from activations import SnakeBeta\nactivation1d.Activation1d(SnakeBeta(3))\n",
            "train.py": "import torch\nfrom torch import filter, cuda\n",
        },
        {
            "bigvgan.py": f"from {COMPAT} import bigvgan as activations\n"
            f"from {COMPAT}.bigvgan import Activation1d as TorchActivation1d\n"
            "def f(cuda):\n    if cuda:\n"
            f"        from {COMPAT}.bigvgan import Activation1d as CudaActivation1d\n"
            "    return activations.Snake(3, alpha_logscale=True)\n",
            "tests/test_activation.py": f"from {COMPAT} import bigvgan as alias_free_activation\n"
            f"from {COMPAT} import bigvgan as activation1d\n"
            f"from {COMPAT}.bigvgan import SnakeBeta\nactivation1d.Activation1d(SnakeBeta(3))\n",
            "train.py": "import torch\nfrom torch import filter, cuda\n",
        },
    ),
    f"{BIGVGAN}, version 1, below a folder": (
        {
            "tts/vocoder/alias_free_torch": ALIAS_FREE_TORCH,
            "tts/vocoder/activations.py": SNAKES,
            "tts/vocoder/models.py": "from . import activations\nfrom .activations import Snake\n"
            "from .alias_free_torch import *\nclass DownSample1d: ...\n"
            "lambda nn, math: nn.x, math\n",
            "tts/vocoder/old.py": "from .activations import *\n"
            "from alias_free_torch.filter import *\n",
            "tts/net.py": "from tts.vocoder.alias_free_torch.resample import UpSample1d\n"
            "from .vocoder.activations import Snake\n",
        },
        {
            "tts/vocoder/models.py": f"from {COMPAT} import bigvgan as activations\n"
            f"from {COMPAT}.bigvgan import Snake\nfrom {COMPAT}.bigvgan import Activation1d, "
            "DownSample1d, LowPassFilter1d, UpSample1d, kaiser_sinc_filter1d\n"
            "class DownSample1d: ...\nlambda nn, math: nn.x, math\n",
            "tts/vocoder/old.py": f"from {COMPAT}.bigvgan import Snake, SnakeBeta\n"
            f"from {COMPAT}.bigvgan import LowPassFilter1d, kaiser_sinc_filter1d\n",
            "tts/net.py": f"from {COMPAT}.bigvgan import UpSample1d\n"
            f"from {COMPAT}.bigvgan import Snake\n",
        },
    ),
    f"{BIGVGAN}, beside another module of the name": (
        {
            "voc/alias_free_torch": ALIAS_FREE_TORCH,
            "voc/activations.py": SNAKES,
            "voc/net.py": "import activations\nfrom alias_free_torch import Activation1d\n",
            "voc/voc.py": "from voc.activations import Snake\n",
            "main.py": "from activations import Snake\nfrom voc.activations import SnakeBeta\n",
            "other/activations.py": "class Snake: ...\nclass Swish: ...\n",
            "other/net.py": "import activations\nfrom activations import Snake\n"
            "activations.Swish()\n",
            "third/activations/__init__.py": "class Snake: ...\n",
            "third/net.py": "from activations import *\nimport activations as a\na.Swish\n",
        },
        {
            "voc/net.py": f"from {COMPAT} import bigvgan as activations\n"
            f"from {COMPAT}.bigvgan import Activation1d\n",
            "voc/voc.py": f"from {COMPAT}.bigvgan import Snake\n",
            "main.py": f"from {COMPAT}.bigvgan import Snake\n"
            f"from {COMPAT}.bigvgan import SnakeBeta\n",
            "other/activations.py": "class Snake: ...\nclass Swish: ...\n",
            "other/net.py": "import activations\nfrom activations import Snake\n"
            "activations.Swish()\n",
            "third/activations/__init__.py": "class Snake: ...\n",
            "third/net.py": "from activations import *\nimport activations as a\na.Swish\n",
        },
    ),
    f"{BIGVGAN}, in code of checkpoints": (
        {
            "alias_free_torch": ALIAS_FREE_TORCH,
            "net.py": "from alias_free_torch import Activation1d\n"
            "lambda k: k.endswith('.filter') or k.replace('.act.alpha', '.activations')\n",
        },
        {
            "net.py": f"from {COMPAT}.bigvgan import Activation1d\n"
            "lambda k: k.endswith('.filter') or k.replace('.act.alpha', '.activations')\n",
        },
    ),
    f"{BIGVGAN}, with a table of activations": (
        {
            "alias_free_torch": ALIAS_FREE_TORCH,
            "activations.py": f"{SNAKES}ACTS = {{'snake': Snake}}\n",
            "net.py": "from alias_free_torch import Activation1d\nfrom activations import ACTS\n",
        },
        {
            "activations.py": f"{SNAKES}ACTS = {{'snake': Snake}}\n",
            "net.py": f"from {COMPAT}.bigvgan import Activation1d\nfrom activations import ACTS\n",
        },
    ),
    f"{BIGVGAN}, with activations of their own": (
        {
            "alias_free_activation": {"torch": ALIAS_FREE_TORCH},
            "activations.py": f"{SNAKES}class Mine: ...\n",
            "net.py": "from alias_free_activation.torch import Activation1d, LowPassFilter1d\n"
            "from activations import Snake, Mine\n",
        },
        {
            "activations.py": f"{SNAKES}class Mine: ...\n",
            "net.py": f"from {COMPAT}.bigvgan import Activation1d, LowPassFilter1d\n"
            "from activations import Snake, Mine\n",
        },
    ),
    f"{BIGVGAN}, installed": (
        {
            "net.py": "from alias_free_torch import Activation1d, Activation2d\n"
            "import activations\nfrom alias_free_torch.act import *\n",
        },
        {
            "net.py": "from alias_free_torch import Activation2d\n"
            f"from {COMPAT}.bigvgan import Activation1d\nimport activations\n"
            "from alias_free_torch.act import *\n",
        },
    ),
    "mmcv": (
        {
            "model.py": "from mmcv.ops import bias_act, filter2d, upfirdn2d, RoIAlign\n"
            "from mmcv.ops.fused_bias_leakyrelu import FusedBiasLeakyReLU, fused_bias_leakyrelu\n"
            "from mmcv.cnn import ConvModule\nfrom mmcv.ops import *\nimport mmcv.ops as ops\n",
        },
        {
            "model.py": f"from mmcv.ops import RoIAlign\n"
            f"from {COMPAT}.mmcv import bias_act, filter2d, upfirdn2d\n"
            f"from {COMPAT}.mmcv import FusedBiasLeakyReLU, fused_bias_leakyrelu\n"
            "from mmcv.cnn import ConvModule\nfrom mmcv.ops import *\nimport mmcv.ops as ops\n",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("case", MIGRATED)
def test_the_command(case, newline, tmp_path):
    """Every way to import; what is left is what is said here, to the byte."""
    files, expected = MIGRATED[case]
    tree(tmp_path / "code", newline, files)
    tree(tmp_path / "expected", newline, expected)
    commit(tmp_path / "code")
    migrate_quickly(tmp_path / "code", case.split(",")[0])
    found = {
        str(p.relative_to(tmp_path / "code")): t for p, t in contents(tmp_path / "code").items()
    }
    wanted = {
        str(p.relative_to(tmp_path / "expected")): t
        for p, t in contents(tmp_path / "expected").items()
    }
    assert found == wanted
    names = {}
    for text in found.values():  # what ours are asked for is there
        for line in re.findall(rb"(?:from|import) resample_layers[^\r\n#]*", text):
            exec(line, names)


@pytest.mark.parametrize(
    ("heading", "files", "sentence"),
    [
        ("rosinality", {"op": OP, "a.py": "from op.upfirdn2d import upfirdn2d_cuda\n"},
         "a.py:1: resample_layers.compat.rosinality has no upfirdn2d_cuda"),
        ("rosinality", {"op": OP, "a.py": "\nimport op.upfirdn2d\n"},
         "a.py:2: import op.upfirdn2d needs a name of its own: as NAME"),
        ("rosinality", {"op": OP, "old.py": "from op import upfirdn2d\nprint 'x'\n"},
         "old.py: it may import what is deleted, and cannot be parsed: "),
        ("rosinality", {"op": OP, "a.py": "load(name='x', sources=['op/upfirdn2d.cpp'])\n"},
         "a.py:1: 'op/upfirdn2d.cpp' is deleted"),
        ("rosinality", {"op": OP, "a.py": "sys.path.insert(0, 'op')\n"
                        "from upfirdn2d import upfirdn2d\n"},
         "a.py:2: op.upfirdn2d is deleted: import it by this name"),
        ("rosinality", {"gan/op": OP, "gan/play.py": "import fused_act as act\n"},
         "gan/play.py:1: op.fused_act is deleted: import it by this name"),
        ("rosinality", {"op": {**OP, "warp.py": "import upfirdn2d\n"}},
         "op/warp.py:1: op.upfirdn2d is deleted: import it by this name"),
        ("rosinality", {"op": OP, "a.py": "import_module('.upfirdn2d', 'op')\n"},
         "a.py:1: '.upfirdn2d' is deleted"),
        ("rosinality", {"op": OP, "a/b.py": "import_module('..op.upfirdn2d', 'a.c')\n"},
         "a/b.py:1: '..op.upfirdn2d' is deleted"),
        ("rosinality", {"op": OP, "a.py": "load(sources=[join(d, 'op', 'upfirdn2d.py')])\n"},
         "a.py:1: 'upfirdn2d.py' is deleted"),
        ("rosinality", {"op": OP, "a.py": "load(sources=[join(d, 'upfirdn2d_kernel.cu')])\n"},
         "a.py:1: 'upfirdn2d_kernel.cu' is deleted"),
        ("rosinality", {"op": OP, "a.py": "load(sources=['./op/upfirdn2d.cpp'])\n"},
         "a.py:1: './op/upfirdn2d.cpp' is deleted"),
        ("rosinality", {"op": OP, "a.py": "load(sources=[f'{d}/op/upfirdn2d.cpp'])\n"},
         "a.py:1: '/op/upfirdn2d.cpp' is deleted"),
        (NVIDIA, {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                  "b.py": "from torch_utils.ops.upfirdn2d import _parse_padding\n"},
         "b.py:1: resample_layers.compat.nvidia has no _parse_padding"),
        (NVIDIA, {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                  "b.py": "from torch_utils.ops import upfirdn2d as u\nu._init()\n"},
         "b.py:2: resample_layers.compat.nvidia has nothing for u._init"),
        (NVIDIA, {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                  "b.py": "x = importlib.import_module('torch_utils.ops.fma')\n"},
         "b.py:1: 'torch_utils.ops.fma' is deleted"),
        (NVIDIA, {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                  "b.py": "import torch_utils.ops.grid_sample_gradfix\n"
                  "torch_utils.ops.fma.fma\n"},
         "b.py:2: torch_utils.ops.fma is deleted"),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH,
                   "a.py": "from alias_free_torch import Activation1d, Activation2d\n"},
         "a.py:1: resample_layers.compat.bigvgan has no Activation2d"),
        (BIGVGAN, {"alias_free_activation": ALIAS_FREE_ACTIVATION,
                   "a.py": example(BIGVGAN, "python") + "\n"},
         "a.py:1: resample_layers.compat.bigvgan has no load; "
         "delete the preload: nothing is built"),
        (BIGVGAN, {"alias_free_activation": ALIAS_FREE_ACTIVATION,
                   "a.py": "import alias_free_activation.cuda.load as cuda\ncuda.load()\n"},
         "a.py:2: resample_layers.compat.bigvgan has nothing for cuda.load; delete the preload: "),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH, "activations.py": SNAKES,
                   "a.py": "from alias_free_torch import *\nclass A(nn.Module): a = math.pi\n"},
         "a.py:1: resample_layers.compat.bigvgan has no math, nn, which * gives"),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH, "activations.py": SNAKES,
                   "a.py": "def f():\n    sinc = 1\nfrom activations import *\ntorch.ones(3)\n"},
         "a.py:3: resample_layers.compat.bigvgan has no torch, which * gives"),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH,
                   "a.py": "from alias_free_torch import *\nact.Activation1d()\n"},
         "a.py:1: resample_layers.compat.bigvgan has no act, which * gives"),
        (BIGVGAN, {"alias_free_activation": ALIAS_FREE_ACTIVATION,
                   "a.py": "from alias_free_activation.cuda.load import *\n"},
         "a.py:1: resample_layers.compat.bigvgan has no *; delete the preload: nothing is built"),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH, "a.py": "import alias_free_torch as a\n"
                   "import_module('.filter', package=a.__name__)\n"},
         "a.py:2: '.filter' is deleted"),
        (BIGVGAN, {"gan/alias_free_torch": ALIAS_FREE_TORCH, "gan/activations.py": SNAKES,
                   "a.py": "from gan import activations\nactivations.Sin(3)\n"},
         "a.py:2: resample_layers.compat.bigvgan has nothing for activations.Sin"),
        (BIGVGAN, {"a.py": "from alias_free_activation.torch import Activation1d\n"},
         "no copy of alias_free_activation was found under "),
        (BIGVGAN, {"alias_free_torch": ALIAS_FREE_TORCH, "activations.py": SNAKES,
                   "a.py": "patch(target='activations.SnakeBeta')\n"},
         "a.py:1: 'activations.SnakeBeta' is deleted"),
        (NVIDIA, {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                  "b.py": "from torch_utils import ops\nops.upfirdn2d.setup_filter([1])\n"},
         "b.py:2: ops.upfirdn2d is deleted"),
    ],
)  # fmt: skip
def test_the_command_changes_all_or_nothing(heading, files, sentence, tmp_path):
    tree(tmp_path, "\n", {**files, "c.py": "from op import upfirdn2d\n"})
    commit(tmp_path)
    before = contents(tmp_path)
    for options in ((), ("--force",), ("--dry-run",)):
        said = migrate_quickly(tmp_path, heading, *options, refused=True)
        assert said.startswith("Nothing was changed, because of:\n")
        assert any(line.startswith(sentence) for line in said.splitlines()), said
        assert contents(tmp_path) == before


NAMED = {  # a second file, and what is told of it where net/op is deleted; "" is refused nowhere
    "net.op.upfirdn2d(1)": "{}:2: net.op is deleted",
    "net.m.op.fused_act.FusedLeakyReLU": "{}:2: resample_layers.compat.rosinality has nothing for "
    "net.m.op.fused_act",
    "getattr(net, 'op').upfirdn2d": "{}:2: net.op is deleted",
    "sys.modules[net.op.__name__] = 1": "{}:2: net.op is deleted",
    "hasattr(net, 'op')": "{}:2: net.op is deleted",
    "def f(x: 'list[net.op.upfirdn2d]'): ...": "{}:2: net.op is deleted",
    "x: list['list[\\'net.op.upfirdn2d\\']']": "{}:2: net.op is deleted",
    "x: Literal['net.op.upfirdn2d']": "{}:2: 'net.op.upfirdn2d' is deleted",
    "x: 'net.op.upfirdn2d' = 'net.op.fused_act'": "{}:2: 'net.op.fused_act' is deleted\n"
    "{}:2: net.op is deleted",
    "del net.op": "{}:2: net.op is deleted",
    "from net import *; op.upfirdn2d(1)": "{}:2: op is deleted",
    "from net.m import op as o; o.fused_act": "{}:2: resample_layers.compat.rosinality has nothing "
    "for o.fused_act",
    "import_module('op')": "{}:2: 'op' is deleted",
    "importlib.import_module(name='op')": "{}:2: 'op' is deleted",
    "import_module('.op', 'net')": "{}:2: '.op' is deleted",
    "import_module('.op', package=__package__)": "net/{}:2: '.op' is deleted",
    "import_module('fused_act')": "{}:2: 'fused_act' is deleted",
    "__import__('op')": "{}:2: 'op' is deleted",
    "__import__('net', fromlist=['op'])": "{}:2: 'net' is deleted",
    "__import__('op', globals(), locals(), [], 1)": "net/{}:2: 'op' is deleted",
    "importlib.util.find_spec('op')": "{}:2: 'op' is deleted",
    "runpy.run_module('op', run_name='__main__')": "{}:2: 'op' is deleted",
    "pkgutil.resolve_name('op:upfirdn2d')": "{}:2: 'op:upfirdn2d' is deleted",
    "sys.modules['op']": "{}:2: 'op' is deleted",
    "pytest.importorskip('op')": "{}:2: 'op' is deleted",
    "mock.patch('op.FusedLeakyReLU')": "{}:2: 'op.FusedLeakyReLU' is deleted",
    "monkeypatch.setattr('net.op._mine', 1)": "{}:2: 'net.op._mine' is deleted",
    "{'target': 'net.op.FusedLeakyReLU'}": "{}:2: 'net.op.FusedLeakyReLU' is deleted",
    "['python', '-m', 'op']": "{}:2: 'op' is deleted",
    "run([sys.executable, '-c', 'import op'])": "{}:2: op is deleted, which a program in a string "
    "imports",
    "exec('from net.op import upfirdn2d')": "{}:2: net.op is deleted, which a program in a string "
    "imports",
}
HARMLESS = (
    "op", "x = {'op': 1}; x['op']", "'op:read', 'op.lr', 'op = 1'", "getattr(x, 'op')",
    "import op\ndef f(x: 'op.FusedLeakyReLU', *y: list['op.upfirdn2d']) -> 'op.upfirdn2d': ...",
    "from net.m import op as o; x: 'o.FusedLeakyReLU' = 1", "hasattr(x, 'op')",
    "client.patch('op')", "setattr(x, 'op', 1)", "sys.modules['op'] = x",
    "sys.modules['op.upfirdn2d'] = x", "sys.modules[f'net.op.upfirdn2d{x}'] = x",
    "sys.modules.get('op')",
    "lib.modules['op']", "['-m', 1], ['-k', 'op']", "exec('import torch')", "net.m.op.upfirdn2d(1)",
    "import_module('torch'), import_module(name), __import__(name, fromlist=names)",
    "__import__('torch', level=x.level), __import__('torch', None, None, [], 'op')",
    "net.more.op.fused_act", "net.op = 1", "f(packages=['op'])", "[*a, *b], getattr(*c)",
)  # fmt: skip


def user(tmp_path, line, place="{}"):
    """A code whose ``net/m.py`` imports the copy, and which reads it with one more line."""
    files = {"net/op": OP, "net/__init__.py": "", "net/m.py": "from . import op\n", "op": OP}
    files["net/more.py"] = "class op: ...\n"
    path = place.split(":")[0].format("use.py")
    tree(tmp_path, "\n", {**files, path: f"import net.m, net.more\n{line}\n"})
    commit(tmp_path)
    return contents(tmp_path)


@pytest.mark.parametrize("line", NAMED)
def test_code_that_reaches_what_is_deleted_without_an_import_is_refused(line, tmp_path):
    """By its package, by a name in a string, or by a command."""
    before = user(tmp_path, line, NAMED[line])
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert said.splitlines()[1:] == NAMED[line].replace("{}", "use.py").splitlines()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("line", HARMLESS)
def test_code_that_only_looks_so_is_not_refused(line, tmp_path):
    user(tmp_path, line)
    migrate_quickly(tmp_path, "rosinality")
    assert not (tmp_path / "net" / "op").exists()


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("", "b.py:2: net.op is deleted"),
        ("from .m import upfirdn2d\n", "b.py:2: net.op is deleted"),
        ("from .m import *\nfrom torch import *\n", "b.py:2: net.op is deleted"),
        ("def f():\n    from . import op\n", "b.py:2: net.op is deleted"),
        ("from . import m\nop.upfirdn2d\n", "net/__init__.py:2: op is deleted"),
        ("from . import m\n__all__ = ['m', 'op']\n", "net/__init__.py:2: op is deleted"),
        ("from . import op\n", ""),
        ("from . import op\n__all__ = ['op']\nop.upfirdn2d\n", ""),
        ("from .m import *\nfrom .n import *\nop.upfirdn2d\n", ""),
        ("try:\n    import op as op\nfinally: ...\n", ""),
        ("class op: upfirdn2d = None\n", ""),
        ("def __getattr__(name): ...\n", ""),
    ],
)
def test_a_package_has_a_module_only_where_it_says_so(package, told, tmp_path):
    """An import of ``net.op`` anywhere gave ``net`` its attribute ``op``."""
    files = {"net/op": OP, "op": OP, "net/m.py": "from .op import upfirdn2d\n"}
    files |= {"net/n.py": "from .o import *\n", "net/o.py": "from .n import *\nfrom . import op\n"}
    files |= {"b.py": "import net.m\nnet.op.upfirdn2d\n", "net/__init__.py": package}
    if "net/__init__" in told:
        del files["b.py"]
    tree(tmp_path, "\n", files)
    commit(tmp_path)
    before = contents(tmp_path)
    said = migrate_quickly(tmp_path, "rosinality", refused=bool(told))
    if told:
        assert said.splitlines()[1:] == [told]
        assert contents(tmp_path) == before
    else:
        assert not (tmp_path / "net" / "op").exists()


def test_star_imports_that_meet_again_are_read_once(tmp_path):
    """There are 2 ** 60 ways from the package to its first module."""
    lines = [f"from .m{i} import *\n" for i in range(60)]
    files = {f"net/m{i}.py": "".join(lines[:i]) for i in range(60)}
    files |= {"net/op": OP, "net/__init__.py": "".join(lines), "use.py": "import net\nnet.op\n"}
    use(tmp_path, **files)
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert said.splitlines()[1:] == ["use.py:2: net.op is deleted"]


def test_star_imports_in_copies_that_meet_again_are_read_once(tmp_path):
    """Each of the copies takes all of the other modules of all of the copies."""
    text = "from op.{} import *\nupfirdn2d = 1\n"
    modules = {"fused_act.py": text.format("upfirdn2d"), "upfirdn2d.py": text.format("fused_act")}
    copies = {f"a{i}/op": {**OP, **modules} for i in range(12)}
    use(tmp_path, **copies, **{"b.py": "from op.fused_act import *\nupfirdn2d\n"})
    migrate_quickly(tmp_path, "rosinality")
    line = f"from {COMPAT}.rosinality import FusedLeakyReLU, fused_leaky_relu, upfirdn2d\n"
    assert (tmp_path / "b.py").read_text() == f"{line}upfirdn2d\n"


def test_a_module_that_its_package_renames_is_refused(tmp_path):
    """The package stays, and does not hold the function by the name of the module."""
    package = "from .upfirdn2d import upfirdn2d as up\nfrom .fused_act import *\n"
    files = {"op": {**OP, "warp.py": "", "__init__.py": package}}
    tree(tmp_path, "\n", {**files, "b.py": "import op.warp\nop.up, op.upfirdn2d.upfirdn2d\n"})
    commit(tmp_path)
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert said.splitlines()[1:] == ["b.py:2: op.upfirdn2d is deleted"]


SCRIPTS = {
    "run.sh": (
        "set -e\npython3 -u -W ignore -m op.upfirdn2d --size 3\n",
        "2: 'op.upfirdn2d' is deleted",
    ),
    "go": ("#!/bin/sh\n$PYTHON -m net.op\n", "2: 'net.op' is deleted"),
    "Makefile": ("all:\n\t$(PYTHON) ./op/upfirdn2d.py\n", "2: './op/upfirdn2d.py' is deleted"),
    "a.bash": ("echo ' # ' #; python -m opt\necho ' # '; python -m op\n", "2: 'op' is deleted"),
    "net/ci.yml": ("run: python ../op/upfirdn2d.py\n", "1: '../op/upfirdn2d.py' is deleted"),
    "Dockerfile": ('CMD ["python", "-m", "op"]\n', "1: 'op' is deleted"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_runs_what_is_deleted_is_refused(name, tmp_path):
    text, told = SCRIPTS[name]
    before = use(tmp_path, **{"net/op": OP, name: text})
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert said.splitlines()[1:] == [f"{name}:{told}"]
    assert contents(tmp_path) == before


def test_a_script_that_runs_something_else_is_not_refused(tmp_path):
    lines = "# python -m op\npytest -m op\npython -m pytest -m op\npython op.py ops/upfirdn2d.py\n"
    lines += "python -m opt\ncp op/upfirdn2d.py there\npython -m net.m\ngit commit -m op\n"
    lines += "x=1 # python -m op\nx='a # b' # python -m op\ndon't # python -m op\n"
    use(tmp_path, **dict.fromkeys(("a.sh", "Makefile", "b.yaml", "op.json", "README.md"), lines))
    (tmp_path / "gone.sh").symlink_to("nowhere")
    migrate_quickly(tmp_path, "rosinality")
    assert not (tmp_path / "op").exists()


def test_what_a_build_or_a_doctest_must_lose_is_told(tmp_path):
    toml = '[project.scripts]\nup = "net.op:main"\nother = "net.m:op"\n[tool.setuptools]\n'
    toml += 'packages = [\n    "net",\n    "net.op",\n    "op",\n]\n'
    cfg = "[options]\npackages =\n    net\n    op\n[options.entry_points]\nconsole_scripts =\n"
    cfg += "    up = op.upfirdn2d:main\n"
    setup = "setup(entry_points={'console_scripts': ['up = net.op:main', 'm = net.m:op']})\n"
    doc = '"""A module.\n\n    >>> import torch\n    >>> from op import upfirdn2d\n"""\n'
    use(tmp_path, **{"net/op": OP, "net/m.py": doc, "setup.py": setup,
                     "pyproject.toml": toml, "setup.cfg": cfg})  # fmt: skip
    printed = migrate_quickly(tmp_path, "rosinality")
    told = [line for line in printed.splitlines() if line.startswith("by hand: ")]
    assert sorted(line.removeprefix("by hand: ") for line in told) == [
        "net/m.py:4: change a doctest: op is deleted, which it imports",
        "pyproject.toml:2: remove 'net.op:main', which is deleted",
        "pyproject.toml:7: remove 'net.op', which is deleted",
        "pyproject.toml:8: remove 'op', which is deleted",
        "setup.cfg:4: remove 'op', which is deleted",
        "setup.cfg:7: remove 'op.upfirdn2d:main', which is deleted",
        "setup.py:1: remove 'up = net.op:main', which is deleted",
    ]
    assert not (tmp_path / "op").exists()


def test_python_is_read_whatever_its_file_is_called(tmp_path):
    line = "from op import upfirdn2d\n"
    script = "#!/usr/bin/env python3\n"
    use(tmp_path, **{"w.pyw": line, "run": script + line, "notes": line, "data": "op\n"})
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    migrate_quickly(tmp_path, "rosinality")
    texts = {name: (tmp_path / name).read_text() for name in ("w.pyw", "run", "notes", "data")}
    assert texts == {"w.pyw": OURS, "run": script + OURS, "notes": line, "data": "op\n"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_import_on_a_line_that_goes_on_from_the_one_above(end, tmp_path):
    tree(tmp_path, end, {"op": OP, "a.py": "if 1: \\\n    import os, op\nelse: x = 1\n"})
    commit(tmp_path)
    migrate_quickly(tmp_path, "rosinality")
    ours = f"import os; from {COMPAT} import rosinality as op"
    assert (tmp_path / "a.py").read_text() == f"if 1: \\\n    {ours}\nelse: x = 1\n"


def test_a_new_text_that_cannot_be_parsed_changes_nothing(tmp_path, monkeypatch):
    """Whatever the reason is: here what writes the lines is broken."""
    before = use(tmp_path)
    monkeypatch.setattr(ast, "unparse", lambda node: "import (")
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    told = "a.py: change its imports by hand: the new text cannot be parsed: "
    assert said.splitlines()[1].startswith(told)
    assert contents(tmp_path) == before


def test_the_command_keeps_encodings(tmp_path):
    tree(tmp_path, "\n", {"op": OP})
    text = "# -*- coding: latin-1 -*-\nname = 'é'; from op import upfirdn2d  # é\n"
    (tmp_path / "a.py").write_bytes(text.encode("latin-1"))
    (tmp_path / "b.py").write_bytes(b"\xef\xbb\xbffrom op import upfirdn2d\n")
    commit(tmp_path)
    migrate_quickly(tmp_path, "rosinality")
    changed = text.replace("from op", "from resample_layers.compat.rosinality")
    assert (tmp_path / "a.py").read_bytes() == changed.encode("latin-1")
    assert (tmp_path / "b.py").read_bytes().startswith(b"\xef\xbb\xbffrom resample_layers")


def test_names_of_files_that_are_not_utf8(tmp_path):
    use(tmp_path, **{f"op/fused_act/{os.fsdecode(bytes([255]))}.txt": ""})
    migrate_quickly(tmp_path, "rosinality")
    assert contents(tmp_path) == {tmp_path / "a.py": OURS.encode()}


def test_the_command_leaves_environments_alone(tmp_path):
    line = "from op import upfirdn2d\n"
    others = [".hidden/a.py", "env/lib/a.py", "conda/lib/site-packages/a.py"]
    files = {"op": OP, "a.py": line, "env/pyvenv.cfg": "", **dict.fromkeys(others, line)}
    tree(tmp_path, "\n", files)
    commit(tmp_path)
    migrate_quickly(tmp_path, "rosinality")
    assert {(tmp_path / name).read_text() for name in others} == {line}
    assert not (tmp_path / "op").exists()


def use(root, **more):
    """A small code with a copy, whose old state git keeps."""
    tree(root, "\n", {"op": OP, "a.py": "from op import upfirdn2d\n", **more})
    commit(root)
    return contents(root)


OURS = f"from {COMPAT}.rosinality import upfirdn2d\n"


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("a.py", "from op import upfirdn2d  # mine\n", "a.py: it differs from the last commit"),
        ("op/upfirdn2d.py", "mine = 1\n", "op/upfirdn2d.py: it differs from the last commit"),
        ("b.py", "import op\n", "b.py: git does not track it"),
        ("op/fused_act/mine.so", "", "op/fused_act/mine.so: git does not track it"),
    ],
)
@pytest.mark.parametrize("add", [False, True])
def test_what_git_does_not_keep_is_refused(file, text, sentence, add, tmp_path):
    """A change that is staged is in no commit either; nor is one that git was told not to see."""
    use(tmp_path)
    tree(tmp_path, "\n", {file: text})
    if add:
        subprocess.run(["git", "add", file], cwd=tmp_path, check=True)
        sentence = f"{file}: it differs from the last commit"
    elif "track" not in sentence:
        arguments = ["git", "update-index", "--assume-unchanged", file]
        subprocess.run(arguments, cwd=tmp_path, check=True)
        sentence = f"{file}: git does not track it"
    before = contents(tmp_path)
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert sentence in said.splitlines()
    assert said.endswith("or give --force to change it all the same\n")
    assert contents(tmp_path) == before
    migrate_quickly(tmp_path, "rosinality", "--force")
    assert (tmp_path / "a.py").read_text().startswith(OURS.strip())
    assert not (tmp_path / "op").exists()


def test_what_it_leaves_alone_may_be_changed_and_untracked(tmp_path):
    use(tmp_path, **{"b.py": "import torch\n"})
    caches = {"op/__pycache__": {"upfirdn2d.cpython-311.pyc": ""}}  # Python's, which git ignores
    tree(tmp_path, "\n", {"b.py": "mine = 1\n", "notes.txt": "mine", **caches})
    migrate_quickly(tmp_path, "rosinality")
    assert contents(tmp_path) == {
        tmp_path / "a.py": OURS.encode(),
        tmp_path / "b.py": b"mine = 1\n",
        tmp_path / "notes.txt": b"mine",
    }


def test_a_folder_without_git_is_refused(tmp_path, monkeypatch):
    tree(tmp_path, "\n", {"op": OP, "a.py": "from op import upfirdn2d\n"})
    before = contents(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for reason in ("fatal: not a git repository", "[Errno 2] No such file or directory: 'git'"):
        said = migrate_quickly(tmp_path, "rosinality", refused=True)
        assert f"git keeps no old state of {tmp_path}: {reason}" in said
        assert "give --force" in said
        monkeypatch.setenv("PATH", str(tmp_path))
    assert contents(tmp_path) == before
    migrate_quickly(tmp_path, "rosinality", "--force")
    assert contents(tmp_path) == {tmp_path / "a.py": OURS.encode()}


def test_git_in_a_folder_above(tmp_path):
    tree(tmp_path, "\n", {"gan/op": OP, "gan/a.py": "from op import upfirdn2d\n", "a.py": ""})
    commit(tmp_path)
    (tmp_path / "a.py").write_text("changed = 1\n")
    note = "note: files outside of gan/ were not read: others of this repository may import what "
    assert f"{COMPARE}{note}is deleted\n" in migrate_quickly(tmp_path / "gan", "rosinality")
    assert contents(tmp_path / "gan") == {tmp_path / "gan" / "a.py": OURS.encode()}


def test_a_dry_run_prints_what_would_change(tmp_path):
    before = use(tmp_path)
    printed = migrate_quickly(tmp_path, "rosinality", "--dry-run")
    changes = f"a.py:1: {OURS}op: deleted\n"
    assert printed == f"{changes}{COMPARE}nothing was changed: this is a dry run\n"
    assert contents(tmp_path) == before
    done = migrate_quickly(tmp_path, "rosinality")
    assert done.startswith(f"{changes}{COMPARE}undo it with: git ")
    assert done.count("\n") == 4


def undo(printed, cwd):
    """Run the command that undoes the change, as it is printed."""
    command = shlex.split(re.search("^undo it with: (.*)$", printed, re.MULTILINE)[1])
    subprocess.run(command, cwd=cwd, check=True)


def test_what_is_printed_undoes_the_change_and_nothing_else(tmp_path):
    """From any folder, and beside work that is in no commit."""
    code = tmp_path / "my code"
    before = use(code, **{"the net/b.py": "import op\n", "notes.txt": "old\n"})
    printed = migrate_quickly(code, "rosinality")
    (code / "notes.txt").write_text("work of a day\n")
    undo(printed, tmp_path)
    assert contents(code) == {**before, code / "notes.txt": b"work of a day\n"}


def test_what_is_forced_is_not_undone(tmp_path):
    """Git's old state of these files is older than what they had before the change."""
    before = use(tmp_path, **{"b.py": "import op\n"})
    tree(tmp_path, "\n", {"a.py": "from op import upfirdn2d\nmine = 1\n", "c.py": "import op\n"})
    printed = migrate_quickly(tmp_path, "rosinality", "--force")
    forced = {path: path.read_bytes() for path in (tmp_path / "a.py", tmp_path / "c.py")}
    undo(printed, tmp_path)
    assert contents(tmp_path) == {**before, **forced}


def test_names_that_git_reads_as_patterns(tmp_path):
    """The undo brings back such a file, and what was built into the copy may have such a name."""
    names = {":b.py": "import op\n", "[c].py": "import op\n", ".gitignore": "*.so\n"}
    before = use(tmp_path, **names)
    (tmp_path / "op" / "fused_act").mkdir()
    (tmp_path / "op" / "fused_act" / ":built.so").touch()
    undo(migrate_quickly(tmp_path, "rosinality"), tmp_path)
    assert contents(tmp_path) == before


def test_ctrl_c_while_the_old_files_are_removed_does_not_count(tmp_path, monkeypatch):
    """All is changed then: without the report there would be no command to undo it."""
    use(tmp_path)
    remove, calls = shutil.rmtree, []

    def stop(path, **options):
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", stop)
    try:
        printed = migrate_quickly(tmp_path, "rosinality")
    except KeyboardInterrupt:  # it would end pytest
        pytest.fail("Ctrl-C counts, and nothing is reported")
    assert "undo it with: git" in printed
    assert contents(tmp_path) == {tmp_path / "a.py": OURS.encode()}
    assert not list(tmp_path.glob(".resample_layers_migrate*"))


@contextmanager
def largest_file(size):
    """No file may grow beyond this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_changes_nothing(tmp_path):
    large = f"from op import upfirdn2d\n{'# and so on' * 1000}\n"
    before = use(tmp_path, **{"b.py": large, "b.py.migrated": "mine\n", "a.py.migrated": "mine\n"})
    with largest_file(8192):
        said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert said.startswith("Nothing was changed, because of:\n[Errno 27] File too large")
    assert contents(tmp_path) == before


def test_modes_and_dates_are_no_matter(tmp_path):
    use(tmp_path, **{"b.py": "#!/usr/bin/env python\nfrom op import upfirdn2d\n"})
    (tmp_path / "b.py").chmod(0o755)
    commit_all = ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qam", "mode"]
    subprocess.run(commit_all, cwd=tmp_path, check=True)
    os.utime(tmp_path / "op" / "upfirdn2d.py", (0, 0))  # no zip file can hold it
    migrate_quickly(tmp_path, "rosinality")
    assert (tmp_path / "b.py").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "op").exists()


def test_links(tmp_path):
    """Imports in a linked file mean what they mean where the link lies."""
    files = {"lib.py": "from op import upfirdn2d\n", "other.py": "from torch import op\n"}
    tree(tmp_path / "elsewhere", "\n", files)
    code = tmp_path / "code"
    tree(code, "\n", {"op": OP, "a.py": "from op import upfirdn2d\n"})
    for name in ("other.py", "nothing.py"):
        (code / name).symlink_to(tmp_path / "elsewhere" / name)
    (code / "data").symlink_to(tmp_path)  # a loop
    (code / "loop.py").symlink_to("loop.py")  # and a smaller one
    commit(code)
    migrate_quickly(code, "rosinality", "--dry-run")
    (code / "lib.py").symlink_to(tmp_path / "elsewhere" / "lib.py")
    (code / "models").mkdir()
    (code / "models" / "op").symlink_to("../op")
    (code / "kept.py").symlink_to("op/upfirdn2d.py")
    (code / "op" / "conv2d_gradfix").symlink_to("../../elsewhere")
    said = migrate_quickly(code, "rosinality", "--force", refused=True).splitlines()
    assert said[1:] == [
        "kept.py: it is a link to op/upfirdn2d.py, which is deleted",
        "lib.py: it is a link: put a file in its place",
        "models/op: it is a link to op, which is deleted",
    ]
    for name in ("kept.py", "lib.py", "models/op"):
        (code / name).unlink()
    migrate_quickly(code, "rosinality", "--force")
    assert not (code / "op").exists()
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == set(files)


def test_what_is_no_file_is_no_code(tmp_path):
    use(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")  # reading it would wait for ever
    (tmp_path / "folder.py").mkdir()
    migrate_quickly(tmp_path, "rosinality")
    assert not (tmp_path / "op").exists()


@contextmanager
def no_rights():
    """Root may read all: be another user for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(("mode", "told"), [(0o000, ["lost"]), (0o444, ["lost/in", "lost/a.py"])])
def test_what_may_not_be_read_is_told(mode, told):
    """A folder that may not be entered, or whose files may not be: they may import the copy."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies where only its owner may go
        root = Path(name)
        root.chmod(0o755)
        before = use(root, **{"lost/a.py": "import op\n", "lost/in/a.py": "", "lost/run.sh": "op"})
        for folder in ("lost", ".git"):  # what is hidden is not read
            (root / folder).chmod(mode)
        try:
            importlib.import_module(
                "resample_layers.compat.migrate"
            )  # it may lie where no other reads
            with no_rights():
                said = migrate_quickly(root, "rosinality", refused=True)
        finally:
            for folder in ("lost", ".git"):
                (root / folder).chmod(0o755)
        sentence = "it may import what is deleted, and cannot be read: [Errno 13] Permission denied"
        lines = [f"{name}: {sentence}: '{root / name}'" for name in told]
        assert said.splitlines()[1:] == lines
        assert contents(root) == before


def test_what_is_nested_too_deeply(tmp_path):
    deep = "x = " + "-" * 100_000 + "1\n"
    use(tmp_path, **{"deep.py": deep})
    migrate_quickly(tmp_path, "rosinality")  # it names nothing that goes
    use(tmp_path, **{"deep.py": f"from op import upfirdn2d\n{deep}"})
    said = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert "deep.py: it may import what is deleted, and cannot be parsed: " in said


def test_a_large_file(tmp_path):
    """Its imports are changed, the strings in it are looked at; not in a minute: in seconds."""
    rows = "".join(f"    ('a.b.c', {i}, 'op/x', 1.5),\n" for i in range(20_000))
    use(tmp_path, **{"large.py": f"from op import upfirdn2d\nrows = [\n{rows}]\n"})
    migrate_quickly(tmp_path, "rosinality")
    assert (tmp_path / "large.py").read_text() == f"{OURS}rows = [\n{rows}]\n"


def test_keys_of_a_state_dict_are_no_modules(tmp_path):
    """BigVGAN has a module "activations", and lists of layers that are called so too."""
    convert = (
        "for n in old:\n    if 'activations.' in n or n.endswith('.activations'):\n"
        "        new[f'resblocks.{i}.activations.{j}.act.alpha'] = new['activations.0.alpha']\n"
    )
    files = {"alias_free_torch": ALIAS_FREE_TORCH, "activations.py": SNAKES}
    files |= {"net.py": "from activations import Snake\n", "convert.py": convert}
    tree(tmp_path, "\n", files)
    commit(tmp_path)
    migrate_quickly(tmp_path, BIGVGAN)
    assert not (tmp_path / "activations.py").exists()
    assert (tmp_path / "convert.py").read_text() == convert


def test_a_long_table_in_a_string(tmp_path):
    """A million numbers: the time grows with them, and not with their square."""
    table = "op\n" + "0.5 " * 1_000_000
    use(tmp_path, **{"large.py": f"import op\ntable = '''{table}'''\n"})
    migrate_quickly(tmp_path, "rosinality")
    changed = f"from {COMPAT} import rosinality as op\ntable = '''{table}'''\n"
    assert (tmp_path / "large.py").read_text() == changed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sh", f"${'PYTHON' * 200_000} op\n"),
        ("setup.cfg", "[options]" + "\n" * 1_000_000 + "name = op\n"),
    ],
    ids=["a.sh", "setup.cfg"],
)
def test_long_lines_in_scripts_and_blank_ones_in_settings(name, text, tmp_path):
    """The time grows with their number, and not with its square."""
    use(tmp_path, **{name: text})
    migrate_quickly(tmp_path, "rosinality")
    assert not (tmp_path / "op").exists()


def test_many_imports(tmp_path):
    """All are changed at once: the text is not built anew for each of them."""
    line = "x = 1; from op import upfirdn2d; y = 2; from op import upfirdn2d  # é\n"
    use(tmp_path, **{"many.py": f"# first\n{line * 1000}# last\n"})
    printed = migrate_quickly(tmp_path, "rosinality")
    changed = line.replace("from op", f"from {COMPAT}.rosinality")
    assert (tmp_path / "many.py").read_text() == f"# first\n{changed * 1000}# last\n"
    told = [int(line.split(":")[1]) for line in printed.splitlines() if "many.py:" in line]
    assert told == sorted([*range(2, 1002)] * 2)


def test_a_terminal_that_lacks_letters(tmp_path):
    use(tmp_path, **{"é.py": "from op import upfirdn2d\n"})
    printed = migrate(tmp_path, "rosinality", PYTHONIOENCODING="ascii")
    assert f"\\xe9.py:1: {OURS}" in printed


@pytest.mark.parametrize(
    ("imported", "place"),
    [("parse_version", "instead"), ("get_distribution, parse_version", "for parse_version")],
)
def test_what_a_kept_file_lacks_is_told(imported, place, tmp_path):
    """stylegan3's ``grid_sample_gradfix.py`` stays, and asks for what setuptools dropped."""
    kept = f"import torch\nfrom pkg_resources import {imported}\n"
    tree(tmp_path, "\n", {"torch_utils/ops": TORCH_UTILS, "torch_utils/misc.py": "",
                          "torch_utils/ops/grid_sample_gradfix.py": kept})  # fmt: skip
    commit(tmp_path)
    printed = migrate_quickly(tmp_path, NVIDIA)
    told = "by hand: torch_utils/ops/grid_sample_gradfix.py:2: setuptools 82 dropped pkg_resources"
    (line,) = [line for line in printed.splitlines() if line.startswith(told)]
    names, told = {}, line.split(f"write {place}: ")[1]
    assert told == example(NVIDIA, "python", "TorchVersion")  # the page's
    exec(told, names)
    assert names["parse_version"]("1.12.1") >= names["parse_version"]("1.11.0a")


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_whose_formulas_nobody_compared_is_told(options, tmp_path):
    """A Snake of another formula may have the same names."""
    line = "by hand: gan/activations.py: compare its formulas with those of "
    line += "resample_layers.compat.bigvgan: only names were compared"
    tree(tmp_path, "\n", {"gan/alias_free_torch": ALIAS_FREE_TORCH, "gan/activations.py": SNAKES})
    commit(tmp_path)
    assert "by hand" not in migrate_quickly(tmp_path, BIGVGAN, *options)  # nothing was deleted
    tree(tmp_path, "\n", {"gan/net.py": "from .alias_free_torch import Activation1d\n"})
    commit(tmp_path)
    assert line in migrate_quickly(tmp_path, BIGVGAN, *options).splitlines()


def test_a_star_of_what_is_installed_is_told(tmp_path):
    text = "from alias_free_torch.act import *\nfrom alias_free_torch.resample import UpSample1d\n"
    tree(tmp_path, "\n", {"a.py": text})
    commit(tmp_path)
    line = "by hand: a.py:1: import by name what alias_free_torch.act gives"
    assert line in migrate_quickly(tmp_path, BIGVGAN).splitlines()


def test_what_was_built_into_the_copy_goes_with_it(tmp_path):
    """BigVGAN's loader builds in the folder of its sources; git was told not to track that."""
    built = "alias_free_activation/cuda/build/anti_alias_activation_cuda.so"
    files = {"alias_free_activation": ALIAS_FREE_ACTIVATION, ".gitignore": "build/\n/mine.py\n",
             "net.py": "from alias_free_activation.torch import Activation1d\n"}  # fmt: skip
    tree(tmp_path, "\n", files)
    commit(tmp_path)
    code = built.replace("anti_alias_activation_cuda.so", "mine.py")
    more = {built: "", "alias_free_activation/cuda/notes.txt": "", code: "mine = 1\n"}
    tree(tmp_path, "\n", {**more, "mine.py": files["net.py"]})
    error = migrate_quickly(tmp_path, BIGVGAN, refused=True)
    assert sorted(error.splitlines()[1:-1]) == sorted([  # what is no build, or is to be edited
        "mine.py: git does not track it",
        f"{code}: git does not track it",
        "alias_free_activation/cuda/notes.txt: git does not track it",
    ])  # fmt: skip
    (tmp_path / "mine.py").unlink()
    (tmp_path / code).unlink()
    (tmp_path / "alias_free_activation" / "cuda" / "notes.txt").unlink()
    printed = migrate_quickly(tmp_path, BIGVGAN)
    assert not (tmp_path / "alias_free_activation").exists()
    undo(printed, tmp_path)
    assert (tmp_path / "alias_free_activation" / "cuda" / "load.py").exists()
    assert not (tmp_path / built).exists()


def test_it_is_run_above_the_copy_and_not_at_home(tmp_path, monkeypatch):
    before = use(tmp_path)
    error = migrate_quickly(tmp_path / "op", "rosinality", refused=True)
    assert f"folder must be that of the code above op, got {tmp_path / 'op'}" in error
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    error = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert f"folder must be that of one code, got {tmp_path}" in error
    assert contents(tmp_path) == before


def test_what_nothing_imports_stays(tmp_path):
    """It may be somebody's own: names are all that a copy is told by."""
    tree(tmp_path, "\n", {"kernels/ops/bias_act.py": "mine = 1\n", "kernels/ops/fma.py": ""})
    before = contents(tmp_path)
    assert "nothing was changed" in migrate_quickly(tmp_path, NVIDIA)
    assert contents(tmp_path) == before


def test_another_package_of_the_same_last_name_stays_itself(tmp_path):
    modules = {f"torch_utils/ops/{name}.py": "" for name in ("__init__", "bias_act", "upfirdn2d")}
    user = "from torch_utils.ops import upfirdn2d\nfrom ops.upfirdn2d import upfirdn2d as theirs\n"
    tree(tmp_path, "\n", {**modules, "ops/upfirdn2d.py": "upfirdn2d = 1\n", "a.py": user})
    commit(tmp_path)
    migrate_quickly(tmp_path, NVIDIA)
    assert "\nfrom ops.upfirdn2d import upfirdn2d as theirs\n" in (tmp_path / "a.py").read_text()


def test_a_file_of_the_same_name_beside_the_code_stays_itself(tmp_path):
    mine = "import upfirdn2d\nopen('upfirdn2d.py'), open('fused_act.py'), open('__init__.py')\n"
    files = {"net/upfirdn2d.py": "", "fused_act.py": "mine = 1\n", "net/a.py": mine}
    before = use(tmp_path, **files)
    migrate_quickly(tmp_path, "rosinality")
    assert (tmp_path / "net" / "a.py").read_bytes() == before[tmp_path / "net" / "a.py"]
    assert not (tmp_path / "op").exists()


@pytest.mark.parametrize("options", [(), ("--force",), ("--dry-run",)])
def test_a_copy_that_is_not_under_the_folder_is_told(options, tmp_path):
    """It lies above the folder, or it is a link to what other codes use too."""
    tree(tmp_path / "shared", "\n", {"op": OP})
    files = {
        "model.py": "from op import upfirdn2d\n",
        "net/b.py": "from .op import upfirdn2d\n",
        "net/c.py": "import op\nop.mine\n",
        "other.py": "from alembic import op\n",
    }
    code = tmp_path / "code"
    tree(code, "\n", files)
    commit(code)
    before = contents(tmp_path)
    lines = ["Nothing was changed, because of:", f"no copy of op was found under {code}"]
    lines += [f"{name}: it imports op" for name in ("model.py", "net/b.py", "net/c.py")]
    said = migrate_quickly(code, "rosinality", *options, refused=True)
    assert said.splitlines() == lines
    (code / "net" / "op").symlink_to(tmp_path / "shared" / "op")
    said = migrate_quickly(code, "rosinality", *options, refused=True)
    assert said.splitlines() == [*lines, f"net/op: it is a link to {tmp_path / 'shared' / 'op'}"]
    (code / "net" / "op").unlink()
    assert contents(tmp_path) == before


def test_what_the_setup_must_lose_is_told(tmp_path):
    setup = (
        "setup(ext_modules=[cythonize([Extension('op.fused_act', ['op/fused_act.py'])]),\n"
        "Extension('mine', ['mine.c'])], packages=['op', 'models.op'])\n"
    )
    files = {"models/op": OP, "b.py": "from models.op import upfirdn2d\n", "models/__init__.py": ""}
    before = use(tmp_path, **files, **{"setup.py": setup})
    printed = migrate_quickly(tmp_path, "rosinality")
    assert (tmp_path / "setup.py").read_bytes() == before[tmp_path / "setup.py"]
    assert [line for line in printed.splitlines() if line.startswith("by hand: ")] == [
        "by hand: setup.py:2: remove 'models.op', which is deleted",
        "by hand: setup.py:1: remove 'op.fused_act', which is deleted",
        "by hand: setup.py:1: remove 'op/fused_act.py', which is deleted",
        "by hand: setup.py:2: remove 'op', which is deleted",
    ]


def test_a_package_named_by_its_dotted_name_is_told(tmp_path):
    files = {f"models/op/{name}.py": "" for name in ("__init__", "fused_act", "upfirdn2d")}
    files |= {"a.py": "from models.op import upfirdn2d\n", "models/__init__.py": ""}
    tree(tmp_path, "\n", {**files, "b.py": "load('models.op')\n"})
    error = migrate_quickly(tmp_path, "rosinality", refused=True)
    assert "b.py:1: 'models.op' is deleted" in error


def test_the_command_finds_nothing_twice(tmp_path):
    use(tmp_path)
    migrate_quickly(tmp_path, "rosinality")
    before = contents(tmp_path)
    assert "nothing imports a copy of op" in migrate_quickly(tmp_path, "rosinality")
    assert contents(tmp_path) == before
