# SPDX-License-Identifier: BSD-3-Clause
"""The StyleGAN2 demo with compiled kernels and with native, at the same time, a thread each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .measure import command, provenance, table, write_section

BACKENDS = ("native", "extension")


def run(steps: int) -> None:
    """Train twice, side by side; write the section ``demo``."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for backend in BACKENDS:
            arguments = ["-m", "examples.stylegan.train", "--steps", str(steps)]
            environment = {**os.environ, "RESAMPLE_LAYERS_BACKEND": backend}
            runs[backend] = subprocess.Popen(
                [sys.executable, *arguments, "--out", f"{folder}/{backend}"],
                env=environment,
                stdout=subprocess.DEVNULL,
            )
        failed = [backend for backend, process in runs.items() if process.wait() != 0]
        if failed:
            raise RuntimeError(f"the demo failed with {failed}")
        seconds = {}
        for backend in BACKENDS:
            lines = (Path(folder) / backend / "metrics.jsonl").read_text().splitlines()
            seconds[backend] = json.loads(lines[-1])["seconds"]
    rows = [
        [backend, f"{seconds[backend]:.0f} s", f"{seconds[backend] / seconds['native']:.2f}"]
        for backend in BACKENDS
    ]
    write_section(
        "demo",
        f"""## The StyleGAN2 demo

{provenance()}. Command: `{command()}`. `python -m examples.stylegan.train --steps {steps}` with
`RESAMPLE_LAYERS_BACKEND` as given, both at once, one thread each; time of the training steps.

{table(["backend", "time", "/ native"], rows)}
""",
    )
    print(*rows, sep="\n")
