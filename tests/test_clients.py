# SPDX-License-Identifier: BSD-3-Clause
"""Codes that call the op, before and after the change of ``docs/migrating.md``.

Equal outputs and equal gradients, checkpoints both ways. The commands are taken from the page and
run on copies. Where a client is not installed, or ``PEERS`` (see ``compat_originals``) names no
checkouts, the summary says NOT RUN; ``RESAMPLE_LAYERS_REQUIRE=kornia,PEERS`` makes it an error.
"""

import importlib
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from resample_layers import UpFirDnDownsample, filters
from resample_layers.compat import basicsr, mmcv
from resample_layers.ops import upfirdn2d

from . import compat_originals
from .compat_originals import importable
from .tools import require

PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()
# What clients do beside our op
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


def example(heading, language):
    """The first block of a section of the page that is no doctest."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(?!>>>)(.*?)\n```", section, re.DOTALL)[1]


def migrate(root, heading):
    subprocess.run(["bash", "-c", example(heading, "sh")], cwd=root, check=True)


def client(name):
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    require(name, found=spec is not None)
    return Path(spec.submodule_search_locations[0])


def checkout(name):
    return Path(compat_originals.require_peers()) / name


def flat(out):
    """All tensors of an output."""
    if isinstance(out, torch.Tensor):
        return [out]
    return [t for part in out or () for t in flat(part)]


def assert_same(before, after, *inputs, second_order=False, **arguments):
    """Checkpoints both ways, outputs, gradients of inputs and parameters, and R1's."""
    with torch.no_grad():  # nothing at zero, where an error hides
        for p in before.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + p)
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
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-5 * max(1e-3, x.abs().max().item()))


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
        stylegan2 = importlib.import_module("basicsr.archs.stylegan2_arch")
        gfpgan = None
        if (root / "gfpgan").exists():
            gfpgan = importlib.import_module("gfpgan.archs.gfpganv1_arch")
        return stylegan2, gfpgan


@pytest.fixture(scope="module")
def basicsr_pair(tmp_path_factory):
    """BasicSR's and GFPGAN's architectures before and after the change."""
    folders = [client("basicsr")]
    if importlib.util.find_spec("gfpgan"):
        folders.append(client("gfpgan"))
    roots = [tmp_path_factory.mktemp(name) for name in ("before", "after")]
    for root in roots:
        for folder in folders:
            shutil.copytree(folder, root / folder.name, ignore=shutil.ignore_patterns("*.pyc"))
    migrate(roots[1], "BasicSR")
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
    client("gfpgan")
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


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_timm_s_blur_pool(size, mode):
    client("timm")
    pool = importlib.import_module("timm.layers").BlurPool2d(3, size, 2, pad_mode=mode)
    taps = filters.NAMED_TAPS[f"binomial{size}"]
    ours = UpFirDnDownsample(taps, 2, "zeros" if mode == "constant" else mode)
    assert_same(pool, ours, torch.randn(2, 3, 10, 8))
    x = torch.randn(1, 3, 9, 7)  # odd sides: they keep one more
    torch.testing.assert_close(pool(x)[:, :, :4, :3], ours(x))


def test_timm_s_even_blur_pool():
    client("timm")
    pool = importlib.import_module("timm.layers").BlurPool2d(3, 4, 2, pad_mode="constant")
    taps = torch.tensor(filters.NAMED_TAPS["binomial4"]) / 8
    x = torch.randn(1, 3, 9, 8)
    torch.testing.assert_close(upfirdn2d(x, taps, down=2, pad=(2, 2)), pool(x))


def test_a_resnet_of_timm():
    client("timm")
    timm = importlib.import_module("timm")
    theirs, names = timm.create_model("resnet18", aa_layer=timm.layers.BlurPool2d), {"timm": timm}
    exec(example("kornia and timm", "python"), names)
    ours = names["model"]
    assert sum(isinstance(m, UpFirDnDownsample) for m in ours.modules()) >= 3
    assert_same(theirs.eval(), ours.eval(), torch.randn(1, 3, 64, 64))


# Checkouts: rosinality, StyleGAN2-ADA, StyleGAN3


def pair(tmp_path, name, heading, module, build):
    """What ``build`` makes of a module of a checkout, as it is and after the change."""
    folder, copy = checkout(name), tmp_path / name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git", "*.pyc", "*.png", "sample"))
    migrate(copy, heading)
    assert not any((copy / part).exists() for part in ("op", "torch_utils/ops/upfirdn2d.py"))
    built = []
    for root in (folder, copy):
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


@pytest.mark.parametrize("module", ["train", "swagan", "non_leaking"])
def test_rosinality_s_other_files_name_nothing_else(tmp_path, module):
    """What they import from ``op`` is there."""
    copy = tmp_path / "rosinality"
    shutil.copytree(checkout("rosinality"), copy, ignore=shutil.ignore_patterns(".git", "*.png"))
    migrate(copy, "rosinality")
    lines = re.findall(
        r"^from resample_layers.*", (copy / f"{module}.py").read_text(), re.MULTILINE
    )
    assert lines
    for line in lines:
        exec(line, {})


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

    heading = "NVIDIA: StyleGAN2-ADA and StyleGAN3"
    models = list(pair(tmp_path, name, heading, module, lambda m: list(build(m))))
    for generators, discriminators in (models[:2], models[2:]):
        styles = torch.randn(2, generators[0].num_ws, 8)
        assert_same(*generators, styles, second_order=True, noise_mode="const")
        image = torch.randn(4, 3, 16, 16)
        assert_same(*discriminators, image, second_order=True, c=None)


def test_nvidia_s_augmentation(tmp_path):
    """Separable wavelets, gains, crops and ``conv2d_gradfix``; all but the noise."""
    every = ("rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "imgfilter", "cutout")

    def build(m):
        return [m.AugmentPipe(**dict.fromkeys(every, 1)).requires_grad_(False)]

    heading = "NVIDIA: StyleGAN2-ADA and StyleGAN3"
    (pipes,) = pair(tmp_path, "ada", heading, "training.augment", build)
    image = torch.randn(2, 3, 32, 32)
    assert_same(*pipes, image, debug_percentile=0.7)


def test_mmcv_s_imports(tmp_path):
    """mmcv compiles for minutes and is not asked for: the lines that its users write."""
    file = tmp_path / "model.py"
    file.write_text(
        "from mmcv.ops import bias_act, filter2d, upfirdn2d, upsample2d\n"
        "from mmcv.ops.fused_bias_leakyrelu import FusedBiasLeakyReLU, fused_bias_leakyrelu\n"
        "from mmcv.cnn import ConvModule\n"
    )
    migrate(tmp_path, "mmcv")
    *changed, other = file.read_text().splitlines()
    assert other == "from mmcv.cnn import ConvModule"
    names = {}
    for line in changed:
        exec(line, names)
    assert names["upfirdn2d"] is mmcv.upfirdn2d
    assert names["FusedBiasLeakyReLU"] is mmcv.FusedBiasLeakyReLU
