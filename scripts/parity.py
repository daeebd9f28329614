# SPDX-License-Identifier: BSD-3-Clause
"""Compares the networks of the examples with the original codes, at full width, on the CPU.

    python scripts/parity.py PEERS [--resolutions 32 64 256] [--only NAME ...] [--latents N]

``PEERS`` is a folder of checkouts, as for ``checkpoint_fixtures.py``, which says how they are run
and what they need.
Each original gets random weights and writes its checkpoint; ours loads that, and gets the same
latents, noise and images. Then ours saves, and the original loads that; of NVIDIA's networks,
rosinality's code loads what ours saves, but for StyleGAN3, which no other code here has. Each line
is the largest difference over the largest value, of a generator's images without truncation, with
it, and of a discriminator's scores; beyond ``LIMITS`` the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from checkpoint_fixtures import PEERS, PSI, ROOT, AliasFree, original, seeded_inputs
from torch import Tensor

sys.path.insert(0, str(ROOT))

from examples.stylegan import checkpoints

LIMITS = dict.fromkeys(PEERS, 1e-5)
LIMITS |= {"stylegan3-t": 3e-5, "stylegan3-r": 3e-5}  # whose last place moves images by 8e-6
SAVES = {
    "rosinality": "rosinality",
    "basicsr": "basicsr",
    "ada": "rosinality",
    "stylegan3-stylegan2": "rosinality",
}
OPTIONS: dict[str, dict[str, Any]] = {  # as training sets them; those of stylegan3 are its defaults
    "ada": {
        "g": {"num_fp16_res": 4, "conv_clamp": 256},
        "d": {"num_fp16_res": 4, "conv_clamp": 256},
    }
}


def outputs(networks: Any, peer: Any, z: Tensor, images: Tensor) -> list[Tensor]:
    """An original's images, truncated images and scores."""
    made = [peer.images(networks, z, psi) for psi in (1, PSI)]
    return [*made, peer.scores(networks, images)]


def our_outputs(checkpoint: checkpoints.Checkpoint, z: Tensor, images: Tensor) -> list[Tensor]:
    generator, mean = checkpoint.generator, checkpoint.latent_avg
    w = generator.mapping(z)
    styles = [generator.repeat(generator.truncate(w, mean, psi)) for psi in (1, PSI)]
    made = [generator.synthesis(style, generator.fixed_noise()) for style in styles]
    return [*made, checkpoint.discriminator(images)]


def differences(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    pairs = zip(ours, theirs, strict=True)
    return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]


def save(checkpoint: checkpoints.Checkpoint, dialect: str, folder: Path) -> list[Path]:
    networks = (checkpoint.generator, checkpoint.discriminator, checkpoint.latent_avg)
    paths = [folder / "ours_g", folder / "ours_d"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the clamp changes is in the figures
        if dialect == "rosinality":
            checkpoints.save_rosinality(paths[0], *networks)
        else:
            checkpoints.save_basicsr(paths[0], *networks, paths[1])
    return paths


def compare(
    name: str, resolution: int, peers: Path, folder: Path, latents: int
) -> dict[str, list[float]]:
    """The lines of one original and size: what was done, and the three differences."""
    z, images = seeded_inputs(512, (4, 3, resolution, resolution))
    z = z[:latents]
    with original(name, peers) as peer:
        networks = peer.networks(resolution, **OPTIONS.get(name, {})).randomise()
        if isinstance(peer, AliasFree):
            peer.measure(networks, z)
        theirs = outputs(networks, peer, z, images)
        checkpoint = checkpoints.load(*peer.save(networks, folder))
        lines = {f"{name} -> ours": differences(our_outputs(checkpoint, z, images), theirs)}
    dialect = SAVES.get(name)
    if dialect is not None:
        paths = save(checkpoint, dialect, folder)
        with original(dialect, peers) as peer:
            networks = peer.networks(resolution)
            networks.mean = checkpoint.latent_avg
            peer.load(networks, paths)
            again = outputs(networks, peer, z, images)
        lines[f"{name} -> ours -> {dialect}"] = differences(again, theirs)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", type=Path, help="folder of the four checkouts")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64, 256])
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--latents", type=int, choices=range(1, 5), default=4, help="images that a generator makes"
    )
    args = parser.parse_args()
    print(f"torch {torch.__version__}, CPU, float32, {torch.get_num_threads()} thread(s)")
    print("| weights of | pixels | images | truncated | scores |\n|---|---|---|---|---|")
    failed: list[str] = []
    for name in args.only:
        for resolution in args.resolutions:
            with tempfile.TemporaryDirectory() as folder:
                lines = compare(name, resolution, args.peers.resolve(), Path(folder), args.latents)
            for what, values in lines.items():
                shown = " | ".join(f"{value:.1e}" for value in values)
                print(f"| {what} | {resolution} | {shown} |", flush=True)
                if not max(values) <= LIMITS[name]:
                    failed.append(f"{what} at {resolution} pixels, of {LIMITS[name]:.0e} allowed")
    print("\n".join(failed) or "all differences are within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
