# SPDX-License-Identifier: BSD-3-Clause
"""``python -m benchmarks``: time everything this machine can and write RESULTS.md."""

import argparse

import torch

from . import cpu, demo, dimensions, filtered, overhead, rational

SECTIONS = {
    "overhead": lambda a: overhead.run(a.seconds),
    "cpu": lambda a: cpu.formulations_side_by_side(a.quick, a.seconds),
    "floor": lambda a: cpu.floors(a.quick, a.seconds),
    "epilogue": lambda a: cpu.epilogue(a.seconds),
    "dimensions": lambda a: dimensions.run(a.seconds),
    "filtered": lambda a: filtered.run(a.seconds),
    "rational": lambda a: rational.run(a.seconds),
    "memory": lambda a: cpu.memory(),
    "memory-gradient": lambda a: cpu.gradient_memory(),
    "demo": lambda a: demo.run(a.steps),
}
parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer shapes and dtypes")
parser.add_argument("--seconds", type=float, default=1.0, help="time for each row, in seconds")
parser.add_argument("--steps", type=int, default=2500, help="steps of the demo")
parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to measure")
arguments = parser.parse_args()

for name in arguments.only or SECTIONS:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    SECTIONS[name](arguments)
