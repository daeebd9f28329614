# SPDX-License-Identifier: BSD-3-Clause
"""Runs the original StyleGAN codes, and writes what the tests of our checkpoint readers need.

    python scripts/checkpoint_fixtures.py PEERS [--only NAME ...]

``PEERS`` is a folder of checkouts named ``rosinality`` (stylegan2-pytorch), ``basicsr`` (BasicSR),
``ada`` (stylegan2-ada-pytorch) and ``stylegan3``. The last makes three kinds of networks, which
have here the names of its option ``--cfg`` behind its own: ``stylegan3-stylegan2``, a StyleGAN2,
``stylegan3-t`` and ``stylegan3-r``. Into ``tests/fixtures/checkpoints`` go

``keys.json``   every key and shape of the originals' networks at full width, 32 and 64 pixels
``layers.json`` the numbers of every layer of StyleGAN3 at full width, and how many parameters
``*.npz``       networks of small width: state by original key, plain attributes, latents, outputs
``*.pkl``       the same network, by NVIDIA's own pickler, with every source text left empty

No file holds code. The originals run on the CPU with their own plain torch operations: rosinality's
by keeping torch from compiling its extension on import, NVIDIA's by themselves. BasicSR has no
plain torch for one of its operations, the bias with leaky ReLU: there, and nowhere else,
``resample_layers.ops`` stands in. Inputs and weights are made from seeds of Numpy's.

Besides torch, NVIDIA's codes import the packages ``scipy`` and ``requests``; the latter is not
among this project's own: ``pip install requests``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import pickle
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "checkpoints"
# What a checkpoint holds and nobody learns: filters, and StyleGAN3's input
FILTERS = ("kernel", "resample_filter", "up_filter", "down_filter")
DRAWN = ("freqs", "phases", "transform")
STYLE = ("modulation.weight", "affine.weight")  # what takes styles [style_dim]
PLAIN = (bool, int, float, str, type(None))
PSI = 0.7  # truncation of the images in the fixtures, which then depend on the mean style too
SMALL = {"z_dim": 8, "w_dim": 8, "c_dim": 0}
# Small networks of NVIDIA's, by original and resolution: most channels of a layer, image channels,
# and options of the generator and of the discriminator
NVIDIA_SMALL: dict[tuple[str, int], tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    ("ada", 32): (8, 3, {"num_layers": 2}, {}),
    ("ada", 64): (6, 3, {"num_layers": 8, "conv_clamp": 0.3}, {"conv_clamp": 0.2}),
    ("stylegan3-stylegan2", 32): (6, 1, {"num_layers": 3, "conv_clamp": 0.2}, {"conv_clamp": 0.1}),
    ("stylegan3-stylegan2", 64): (6, 3, {"num_layers": 2}, {"group_size": 2, "num_channels": 2}),
    ("stylegan3-t", 32): (6, 3, {"num_layers": 2, "conv_clamp": 1.5}, {"conv_clamp": 0.5}),
    ("stylegan3-r", 32): (4, 1, {"num_layers": 1, "conv_clamp": 1.5}, {"conv_clamp": 0.5}),
}
LAYERS = (256, 512, 1024)  # resolutions whose layers are recorded
# The transform of small StyleGAN3s, which moves, turns, stretches and shrinks
TRANSFORM = ((1.25, -0.5, 0.125), (0.25, 1.5, -0.0625), (0.0, 0.0, 1.0))


class Rosinality:
    """rosinality/stylegan2-pytorch. Its widths below 64 pixels are fixed at 512."""

    def __init__(self) -> None:
        # Its own operations for the CPU are plain torch, but importing them compiles CUDA code
        with mock.patch("torch.utils.cpp_extension.load"):
            self.model = importlib.import_module("model")

    def networks(self, resolution: int, style_dim: int = 512, depth: int = 8) -> Networks:
        generator = self.model.Generator(resolution, style_dim, depth)
        return Networks(generator, self.model.Discriminator(resolution))

    def images(self, networks: Networks, z: Tensor, psi: float) -> Tensor:
        return networks.generator(
            [z], randomize_noise=False, truncation=psi, truncation_latent=networks.mean
        )[0]

    def scores(self, networks: Networks, images: Tensor) -> Tensor:
        return networks.discriminator(images)

    def save(self, networks: Networks, folder: Path) -> list[Path]:
        path = folder / "rosinality.pt"
        states = {
            "g_ema": networks.generator.state_dict(),
            "d": networks.discriminator.state_dict(),
        }
        torch.save({**states, "latent_avg": networks.mean}, path)
        return [path]

    def load(self, networks: Networks, paths: list[Path]) -> None:
        file = torch.load(paths[0], weights_only=True)
        networks.generator.load_state_dict(file["g_ema"])
        networks.discriminator.load_state_dict(file["d"])
        networks.mean = file["latent_avg"]


class BasicSR:
    """XPixelGroup/BasicSR: the file of the networks alone, without the package around it."""

    def __init__(self) -> None:
        from resample_layers.ops import FusedLeakyReLU, fused_leaky_relu

        for name in ("basicsr", "basicsr.ops", "basicsr.utils", "basicsr.archs"):
            package = types.ModuleType(name)
            package.__path__ = [str(Path(folder, *name.split("."))) for folder in sys.path[:1]]
            sys.modules[name] = package
        ops = types.ModuleType("basicsr.ops.fused_act")
        ops.FusedLeakyReLU, ops.fused_leaky_relu = FusedLeakyReLU, fused_leaky_relu
        sys.modules[ops.__name__] = ops
        self.model = importlib.import_module("basicsr.archs.stylegan2_arch")

    def networks(self, resolution: int, **options: Any) -> Networks:
        generator = self.model.StyleGAN2Generator(resolution, **options)
        narrow = {"narrow": options["narrow"]} if "narrow" in options else {}
        return Networks(generator, self.model.StyleGAN2Discriminator(resolution, **narrow))

    images = Rosinality.images
    scores = Rosinality.scores

    def save(self, networks: Networks, folder: Path) -> list[Path]:
        paths = [folder / "net_g.pth", folder / "net_d.pth"]
        generator = {"params_ema": networks.generator.state_dict(), "latent_avg": networks.mean}
        torch.save(generator, paths[0])
        torch.save({"params": networks.discriminator.state_dict()}, paths[1])
        return paths

    def load(self, networks: Networks, paths: list[Path]) -> None:
        file = torch.load(paths[0], weights_only=True)
        networks.generator.load_state_dict(file["params_ema"])
        networks.mean = file["latent_avg"]
        file = torch.load(paths[1], weights_only=True)
        networks.discriminator.load_state_dict(file["params"])


class Nvidia:
    """The StyleGAN2 of NVlabs/stylegan2-ada-pytorch and of NVlabs/stylegan3."""

    def __init__(self, module: str, nested: bool) -> None:
        # stylegan3 compares versions of torch by what setuptools no longer has
        versions = types.ModuleType("pkg_resources")
        versions.parse_version = Version
        sys.modules["pkg_resources"] = versions
        self.model = importlib.import_module(module)
        del sys.modules["pkg_resources"]
        self.nested = nested  # the options of both parts of the generator are dicts of their own

    def networks(
        self,
        resolution: int,
        image_channels: int = 3,
        latents: Mapping[str, int] | None = None,
        channels: Mapping[str, int] | None = None,
        g: Mapping[str, Any] | None = None,
        d: Mapping[str, Any] | None = None,
    ) -> Networks:
        latents = latents or {"z_dim": 512, "w_dim": 512, "c_dim": 0}
        shape = {"img_resolution": resolution, "img_channels": image_channels}
        synthesis = {**(g or {}), **(channels or {})}
        mapping = {"num_layers": synthesis.pop("num_layers", 8)}
        discriminator = {**(d or {}), **(channels or {})}
        epilogue = {
            f"mbstd_{name}": discriminator.pop(name)
            for name in ("group_size", "num_channels")
            if name in discriminator
        }
        synthesis = {"synthesis_kwargs": synthesis} if self.nested else synthesis
        return Networks(
            self.model.Generator(**latents, **shape, mapping_kwargs=mapping, **synthesis),
            self.model.Discriminator(c_dim=0, **shape, epilogue_kwargs=epilogue, **discriminator),
        )

    def images(self, networks: Networks, z: Tensor, psi: float) -> Tensor:
        options = {"noise_mode": "const", "force_fp32": True}
        return networks.generator(z, None, truncation_psi=psi, **options)

    def scores(self, networks: Networks, images: Tensor) -> Tensor:
        return networks.discriminator(images, None, force_fp32=True)

    def save(self, networks: Networks, folder: Path, protocol: int | None = None) -> list[Path]:
        path = folder / "network-snapshot.pkl"
        generator = networks.generator.requires_grad_(False)
        discriminator = networks.discriminator.requires_grad_(False)
        file = {
            "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset"},
            "G": generator,
            "D": discriminator,
            "G_ema": generator,
            "augment_pipe": None,
        }
        path.write_bytes(pickle.dumps(file, protocol))
        return [path]


class AliasFree(Nvidia):
    """The generator of StyleGAN3, "t" or "r", with the discriminator of its StyleGAN2."""

    def __init__(self, kind: str) -> None:
        super().__init__("training.networks_stylegan2", nested=False)
        self.alias_free = importlib.import_module("training.networks_stylegan3")
        self.dict = importlib.import_module("dnnlib").EasyDict
        self.kind = kind

    def networks(
        self,
        resolution: int,
        image_channels: int = 3,
        latents: Mapping[str, int] | None = None,
        channels: Mapping[str, int] | None = None,
        g: Mapping[str, Any] | None = None,
        d: Mapping[str, Any] | None = None,
    ) -> Networks:
        networks = super().networks(resolution, image_channels, latents, channels, None, d)
        networks.generator = self.generator(resolution, image_channels, latents, channels, g).eval()
        return networks

    def generator(
        self,
        resolution: int,
        image_channels: int = 3,
        latents: Mapping[str, int] | None = None,
        channels: Mapping[str, int] | None = None,
        g: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        latents = latents or {"z_dim": 512, "w_dim": 512, "c_dim": 0}
        options = {"channel_base": 32768, "channel_max": 512, **(channels or {})}
        if self.kind == "r":
            options = {key: 2 * value for key, value in options.items()}
            options |= {"conv_kernel": 1, "use_radial_filters": True}
        options |= g or {}
        mapping = self.dict(num_layers=options.pop("num_layers", 2))
        torch.manual_seed(0)  # of what is drawn, and is not learned
        network = self.alias_free.Generator(
            **latents,
            img_resolution=resolution,
            img_channels=image_channels,
            mapping_kwargs=mapping,
            **options,
        )
        network.synthesis.input.transform.copy_(torch.tensor(TRANSFORM))
        return network

    def measure(self, networks: Networks, z: Tensor) -> None:
        """Give every layer the magnitude of its input for latents [N, z_dim], as training does.

        A layer updates its magnitude before it uses it, so that one pass serves all of them. The
        pass moves the mean style too.
        """
        layers = [m for m in networks.generator.modules() if hasattr(m, "magnitude_ema_beta")]
        decays = [layer.magnitude_ema_beta for layer in layers]
        for layer in layers:
            layer.magnitude_ema_beta = 0.0
        networks.generator(z, None, update_emas=True)
        for layer, decay in zip(layers, decays, strict=True):
            layer.magnitude_ema_beta = decay

    def layers(self, resolution: int) -> dict[str, Any]:
        """The numbers of each layer of a generator at full width, and its parameters."""
        network = self.generator(resolution)
        layers = {}
        for name in network.synthesis.layer_names:
            values = vars(getattr(network.synthesis, name))
            layers[name] = {
                key: value.tolist() if hasattr(value, "tolist") else value
                for key, value in values.items()
                if not key.startswith("_") and key not in ("training", "w_dim")
            }
        count = sum(parameter.numel() for parameter in network.parameters())
        return {"parameters": count, "layers": layers}


PEERS: dict[str, tuple[Any, ...]] = {
    "rosinality": (Rosinality,),
    "basicsr": (BasicSR,),
    "ada": (Nvidia, "training.networks", True),
    "stylegan3-stylegan2": (Nvidia, "training.networks_stylegan2", False),
    "stylegan3-t": (AliasFree, "t"),
    "stylegan3-r": (AliasFree, "r"),
}


class Networks:
    """A generator, a discriminator, and the mean style [style_dim] where those have none."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        self.generator, self.discriminator = generator.eval(), discriminator.eval()
        self.mean: Tensor | None = None

    def randomise(self, seed: int = 0) -> Networks:
        """Give every weight a value that matters; a fresh network has zeros in many places."""
        rng = np.random.RandomState(seed)
        for network in (self.generator, self.discriminator):
            state = network.state_dict()
            network.load_state_dict({**state, **seeded_state(shapes_of(state), rng)})
        if not hasattr(self.generator, "mapping"):
            state = self.generator.state_dict()
            style_dim = next(v.shape[1] for k, v in state.items() if k.endswith(STYLE))
            self.mean = seeded((style_dim,), rng) * 0.3
        return self


@contextlib.contextmanager
def original(name: str, peers: Path) -> Iterator[Any]:
    """One of the originals, imported for as long as the block lasts."""
    checkout = peers / name.partition("-")[0]
    if not checkout.is_dir():
        raise FileNotFoundError(
            f"PEERS must hold a checkout named {checkout.name}, got none at {checkout}"
        )
    before = set(sys.modules)
    kind, *options = PEERS[name]
    sys.path.insert(0, str(checkout))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield kind(*options)
    finally:
        sys.path.remove(str(checkout))
        for module in set(sys.modules) - before:
            top = checkout / module.split(".")[0]
            if top.is_dir() or top.with_suffix(".py").exists():
                del sys.modules[module]


def seeded(shape: Sequence[int], rng: np.random.RandomState) -> Tensor:
    """Normal numbers, of few digits, so that files of them compress."""
    values = np.round(rng.standard_normal(tuple(shape)) * 64) / 64
    return torch.tensor(values, dtype=torch.float32)


def seeded_state(shapes: Mapping[str, list[int]], rng: np.random.RandomState) -> dict[str, Tensor]:
    """Values for each key in alphabetical order, of about the size that training leaves.

    Numpy never changes the numbers of ``RandomState``.
    """
    state = {}
    for key in sorted(shapes):
        if key.endswith((*FILTERS, *DRAWN)):
            continue
        value = seeded(shapes[key], rng)
        if key.startswith(("mapping.fc", "style.", "style_mlp.")):  # learning rate 0.01
            value *= 20 if key.endswith("bias") else 100
        elif key.endswith(("modulation.bias", "affine.bias")):
            value = 1 + 0.3 * value
        elif key.endswith("magnitude_ema"):
            value = value.abs() + 1
        elif value.numel() == 1 or key.endswith(("bias", "w_avg")):
            value *= 0.3
        state[key] = value
    return state


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}


def state_of(networks: Networks) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return networks.generator.state_dict(), networks.discriminator.state_dict()


def seeded_inputs(style_dim: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Latents [4, style_dim] and images ``shape`` of rising contrast for the discriminator."""
    rng = np.random.RandomState(1)
    contrast = torch.arange(1, shape[0] + 1).reshape(-1, 1, 1, 1) / 4
    return seeded((4, style_dim), rng), seeded(shape, rng) * contrast


def attributes(network: nn.Module) -> dict[str, dict[str, Any]]:
    """The plain attributes of every module: what a pickle of NVIDIA's holds besides tensors."""
    found = {}
    for path, module in network.named_modules():
        plain = {k: v for k, v in vars(module).items() if type(v) in PLAIN}
        scalars = {k: v.item() for k, v in vars(module).items() if isinstance(v, np.generic)}
        found[path] = {**plain, **scalars}
    return found


def write_fixture(
    name: str, peer: Any, networks: Networks, resolution: int, state: bool = True, **more: str
) -> None:
    """One small network's state and outputs; ``state=False``: its shapes and filters for state."""
    parts = dict(zip(("generator", "discriminator"), state_of(networks), strict=True))
    channels = next(v.shape[1] for v in parts["discriminator"].values() if v.shape[2:] == (1, 1))
    style_dim = next(v.shape[1] for k, v in parts["generator"].items() if k.endswith(STYLE))
    z, images = seeded_inputs(style_dim, (8, channels, resolution, resolution))
    arrays = {
        "z": z,
        "images": peer.images(networks, z[: 64 // resolution], PSI),
        "scores": peer.scores(networks, images),
    }
    arrays |= {
        f"{part}/{key}": value
        for part, values in parts.items()
        for key, value in values.items()
        if state or key.endswith(FILTERS)
    }
    if not state:
        more["shapes"] = json.dumps({part: shapes_of(values) for part, values in parts.items()})
    if networks.mean is not None:
        arrays["latent_avg"] = networks.mean
    path = FIXTURES / f"{name}_{resolution}.npz"
    np.savez_compressed(path, **{key: value.numpy() for key, value in arrays.items()}, **more)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def write_nvidia_pickle(name: str, peer: Nvidia, networks: Networks, resolution: int) -> None:
    for network in (networks.generator, networks.discriminator):
        for module in network.modules():
            type(module)._orig_module_src = ""
    protocol = (
        3 if name in ("ada", "stylegan3-t") else None
    )  # as the Python of its day wrote it; as today's does
    path = peer.save(networks, FIXTURES, protocol)[0].rename(FIXTURES / f"{name}_{resolution}.pkl")
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def write_all(name: str, peers: Path) -> dict[str, Any]:
    """The fixtures of one original, and its keys and shapes at full width."""
    keys: dict[str, Any] = {}
    with original(name, peers) as peer:
        for resolution in (32, 64):
            states = state_of(peer.networks(resolution))
            shapes = [shapes_of(state) for state in states]
            keys[str(resolution)] = dict(zip(("generator", "discriminator"), shapes, strict=True))
        if name == "rosinality":  # never narrow: the tests make the same state from its seed
            networks = peer.networks(8, style_dim=8, depth=2).randomise()
            write_fixture(name, peer, networks, 8, state=False)
        for resolution in (32, 64):
            if name == "basicsr":
                small = {"num_style_feat": 8, "num_mlp": resolution // 16, "narrow": 1 / 64}
                networks = peer.networks(resolution, **small).randomise()
                write_fixture(name, peer, networks, resolution)
            elif (name, resolution) in NVIDIA_SMALL:
                width, channels, g, d = NVIDIA_SMALL[name, resolution]
                base = {"channel_base": 4 * resolution, "channel_max": width}
                networks = peer.networks(resolution, channels, SMALL, base, g, d).randomise()
                if isinstance(peer, AliasFree):
                    peer.measure(networks, seeded_inputs(SMALL["z_dim"], (4, 1, 1, 1))[0])
                parts = {"generator": networks.generator, "discriminator": networks.discriminator}
                more = {}
                if not isinstance(peer, AliasFree):  # whose attributes are not all plain
                    plain = {part: attributes(net) for part, net in parts.items()}
                    more["attributes"] = json.dumps(plain)
                write_fixture(name, peer, networks, resolution, **more)
                if resolution == 32:
                    write_nvidia_pickle(name, peer, networks, resolution)
    return keys


def update(name: str, values: dict[str, Any]) -> None:
    """Put the values of some originals into a file, and keep those of the others."""
    path = FIXTURES / name
    before = json.loads(path.read_text()) if path.exists() else {}
    lines = json.dumps({**before, **values}, separators=(",", ":"))
    path.write_text(lines.replace("]],", "]],\n").replace("},", "},\n") + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", type=Path, help="folder of the four checkouts")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    args = parser.parse_args()
    peers = args.peers.resolve()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    update("keys.json", {name: write_all(name, peers) for name in args.only})
    layers = {}
    for name in args.only:
        if PEERS[name][0] is AliasFree:
            with original(name, peers) as peer:
                layers[name] = {str(side): peer.layers(side) for side in LAYERS}
    update("layers.json", layers)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
