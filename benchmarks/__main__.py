# SPDX-License-Identifier: BSD-3-Clause
"""``python -m benchmarks``: time everything this machine can and write RESULTS.md."""

import argparse

import torch

from . import cpu, overhead

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("--quick", action="store_true", help="one shape instead of four")
parser.add_argument("--seconds", type=float, default=1.0, help="time for each row, in seconds")
arguments = parser.parse_args()

torch.set_num_threads(2)
torch.manual_seed(0)
overhead.run(arguments.seconds)
cpu.run(arguments.quick, arguments.seconds)
