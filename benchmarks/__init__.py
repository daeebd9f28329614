# SPDX-License-Identifier: BSD-3-Clause
"""Measured figures: ``python -m benchmarks`` writes ``benchmarks/RESULTS.md``."""
