# SPDX-License-Identifier: BSD-3-Clause
"""Timing side by side, peak memory in a process of its own, and sections of RESULTS.md."""

from __future__ import annotations

import gc
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "RESULTS.md"


def interleaved(
    calls: dict[str, Callable[[], object]], seconds: float, least: int = 7
) -> dict[str, list[float]]:
    """Time all calls in turn, round after round: what disturbs one disturbs its neighbours.

    Returns:
        Seconds of every round, sorted, by name. At least ``least`` rounds, more while the whole
        takes less than ``seconds``.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    gc.collect()
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < least or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            result = call()
            times[name].append(time.perf_counter() - start)
            del result
    return {name: sorted(values) for name, values in times.items()}


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """The 20th and the 80th percentile, relative to the median."""
    middle = median(values)
    low, high = values[len(values) // 5], values[len(values) * 4 // 5]
    return f"-{100 * (1 - low / middle):.0f}/+{100 * (high / middle - 1):.0f} %"


def peak_memory(setup: str, call: str) -> tuple[int, int]:
    """Bytes a call adds at its peak to what stood before it, and the bytes of its result.

    Runs in a fresh process: ``setup`` may define names, ``call`` is an expression that gives a
    tensor. Read from the kernel's counters (VmHWM, reset before the call), so that what libraries
    allocate for themselves counts too.
    """
    code = f"""
import torch
torch.set_num_threads(2)
{setup}
def read(name):
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith(name + ":"))
before = read("VmRSS")
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
result = {call}
print(read("VmHWM") - before, result.numel() * result.element_size())
"""
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    added, result = text.split()
    return int(added), int(result)


def provenance() -> str:
    """Machine, versions and date, for the head of a table."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return (
        f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
    )


def command() -> str:
    """The command that makes a section again."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def write_section(name: str, text: str) -> None:
    """Replace one section of RESULTS.md, or append it."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = f"{begin}\n{text.strip()}\n{end}"
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    if begin in old:
        head, rest = old.split(begin)
        new = head + block + rest.split(end)[1]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    RESULTS.write_text(new)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
