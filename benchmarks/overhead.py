# SPDX-License-Identifier: BSD-3-Clause
"""What one eager call costs beside its arithmetic: a 1x1x4x4 tensor, validation included."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from resample_layers import UpFirDnSmooth
from resample_layers.ops import extension, upfirdn2d

from .measure import command, interleaved, median, provenance, spread, table, write_section

CALLS = 200


def run(seconds: float) -> None:
    """Time calls without and with gradient; write the section ``overhead``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing here is worth a second one
    x = torch.randn(1, 1, 4, 4)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps)
    weight = kernel.flip(0, 1)[None, None]
    layer = UpFirDnSmooth()
    rows = []
    for learn in (False, True):
        image = x.clone().requires_grad_(learn)
        calls = {
            "pad + conv2d": lambda x=image: F.conv2d(F.pad(x, (2, 1, 2, 1)), weight),
            "upfirdn2d, 4x4": lambda x=image: upfirdn2d(x, kernel, pad=(2, 1)),
            "upfirdn2d, 4 taps": lambda x=image: upfirdn2d(x, taps, pad=(2, 1)),
            "UpFirDnSmooth": lambda x=image: layer(x),
        }

        def repeat(call):  # type: ignore[no-untyped-def]
            for _ in range(CALLS):
                call()

        times = interleaved(
            {name: lambda call=call: repeat(call) for name, call in calls.items()}, seconds
        )
        composite = median(times["pad + conv2d"])
        for name, values in times.items():
            each = 1e6 * median(values) / CALLS
            rows.append(
                [
                    "with gradient" if learn else "without",
                    name,
                    f"{each:.1f} us",
                    spread(values),
                    f"{median(values) / composite:.2f}",
                ]
            )
            print(*rows[-1], sep=" | ", flush=True)
    write_section(
        "overhead",
        f"""## One eager call on a 1x1x4x4 tensor

{provenance()}; backend: {extension.choices["cpu"].backend}. Command: `{command()}`. Forward only,
validation included. Goal: at most 0.25 of pad + conv2d without gradient, 0.33 with it.

{table(["gradient", "call", "time", "spread", "/ pad + conv2d"], rows)}
""",
    )
    torch.set_num_threads(threads)
