# SPDX-License-Identifier: BSD-3-Clause
"""Prints the numbers of every layer of StyleGAN3's generator.

    python -m examples.stylegan.describe --config stylegan3-t-1024

A config is ``stylegan3-KIND-RESOLUTION``, of the kinds t and r and with the published channels. The
sides are in pixels, with the margin around the image; sampling rates, cutoffs and half widths are
for each image width. A filter of ``12x12`` taps is radial. ``pad`` is what the filters' input gets
before and after it, on the grid of the activation.
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "describe.py must be run as a module, from the root of the clone: "
        "python -m examples.stylegan.describe --config stylegan3-t-1024"
    )

import re
from collections.abc import Sequence

import torch

from .alias_free import AliasFreeGenerator, LayerPlan
from .console import Parser, ending_without_output
from .files import say

HEADER = (
    *("layer", "channels", "side", "rate", "cutoff", "half width", "kernel", "up", "taps"),
    *("down", "taps", "pad"),
)


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m examples.stylegan.describe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", required=True, help="such as stylegan3-t-1024")
    config = parser.parse_args(argv).config
    try:
        table = describe(config)
    except ValueError as error:
        parser.error(str(error))
    say(table)
    return 0


def describe(config: str) -> str:
    """The table of a config.

    Raises:
        ValueError: if it is no config of StyleGAN3's.
    """
    found = re.fullmatch(r"stylegan3-([tr])-(\d{1,5})", config)
    if found is None:
        raise ValueError(
            f"config must be stylegan3-t-RESOLUTION or stylegan3-r-RESOLUTION, got {config!r}"
        )
    with torch.device("meta"):
        generator = AliasFreeGenerator(int(found[2]), kind=found[1])
    rows = [HEADER, *(row(n, plan) for n, plan in enumerate(generator.plans))]
    widths = [max(len(line[n]) for line in rows) for n in range(len(HEADER))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in rows]
    count = sum(parameter.numel() for parameter in generator.parameters())
    first = generator.plans[0]
    start = (
        f"Fourier features of {first.in_channels} channels, {first.in_size} pixels, rate "
        f"{first.in_sampling_rate}, up to {first.in_cutoff:g} waves"
    )
    return "\n".join((start, *lines, f"{count:,} parameters with the mapping network"))


def row(n: int, plan: LayerPlan) -> tuple[str, ...]:
    """One layer's numbers, of its output where there are two."""
    down = f"{plan.down_taps}x{plan.down_taps}" if plan.radial else str(plan.down_taps)
    return (
        "to-RGB" if plan.to_rgb else f"L{n}",
        f"{plan.in_channels} -> {plan.out_channels}",
        f"{plan.in_size} -> {plan.out_size}",
        f"{plan.in_sampling_rate} -> {plan.out_sampling_rate}",
        f"{plan.in_cutoff:.3f} -> {plan.out_cutoff:.3f}",
        f"{plan.in_half_width:.3f} -> {plan.out_half_width:.3f}",
        str(plan.kernel_size),
        str(plan.up),
        str(plan.up_taps),
        str(plan.down),
        down,
        f"{plan.pad[0]}, {plan.pad[1]}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
