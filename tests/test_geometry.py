# SPDX-License-Identifier: BSD-3-Clause
"""The integer formulas, against counting."""

import itertools
import math

import pytest

from resample_layers import geometry

RATES = list(itertools.product(range(1, 6), range(1, 6)))


def reads(y, down, taps, pad0, up, size):
    """Input samples that output y reads, and the tap that reads each, by the definition."""
    found = {}
    for i in range(taps):
        position = y * down + (taps - 1 - i) - pad0
        if position % up == 0:
            found[i] = position // up
    return found


def count_outputs(size, up, down, pad0, pad1, taps):
    return len(range(0, size * up + pad0 + pad1 - taps + 1, down))


@pytest.mark.parametrize(("up", "down"), RATES)
def test_polyphase_visits_exactly_the_samples_of_the_definition(up, down):
    for taps, pad0, pad1, size in itertools.product((1, 2, 5), (-3, 0, 2), (-2, 0, 4), (1, 4, 9)):
        out = count_outputs(size, up, down, pad0, pad1, taps)
        if out < 1:
            continue
        assert geometry.output_size(size, up, down, pad0, pad1, taps) == out
        plan = geometry.polyphase(up, down, pad0, pad1, taps)
        for y in range(out):
            phase, step = y % plan.phases, y // plan.phases
            visited = {t.position: t.offset + plan.stride * step for t in plan.taps[phase]}
            assert visited == reads(y, down, taps, pad0, up, size)
        # What is padded is enough, also for the outputs that are computed and cut off
        steps = plan.steps(out)
        assert (steps - 1) * plan.phases < out <= steps * plan.phases
        offsets = [t.offset for row in plan.taps for t in row]
        if offsets:
            assert plan.before + min(offsets) >= 0
            assert max(offsets) + plan.stride * (steps - 1) < size + plan.after


@pytest.mark.parametrize(("up", "down"), RATES)
def test_adjoint_pads_transpose_the_reads(up, down):
    for taps, pad0, pad1, size in itertools.product((1, 2, 5), (-3, 0, 2), (-2, 0, 4), (1, 4, 9)):
        out = count_outputs(size, up, down, pad0, pad1, taps)
        if out < 1:
            continue
        g0, g1 = geometry.adjoint_pad(size, out, up, down, pad0, taps)
        assert count_outputs(out, down, up, g0, g1, taps) == size
        forward = {
            (y, x, i)
            for y in range(out)
            for i, x in reads(y, down, taps, pad0, up, size).items()
            if 0 <= x < size
        }
        backward = {
            (y, x, taps - 1 - i)
            for x in range(size)
            for i, y in reads(x, up, taps, g0, down, out).items()
            if 0 <= y < out
        }
        assert forward == backward


@pytest.mark.parametrize(("up", "down"), RATES)
def test_row_range_cuts_the_op_into_pieces(up, down):
    for taps, pad0, pad1, size in itertools.product((1, 2, 5), (-3, 0, 6), (-2, 0, 4), (1, 4, 9)):
        out = count_outputs(size, up, down, pad0, pad1, taps)
        for first, last in itertools.combinations(range(out + 1), 2):
            a, b, new0, new1 = geometry.row_range(size, first, last, up, down, pad0, taps)
            assert 0 <= a <= b <= size
            assert count_outputs(b - a, up, down, new0, new1, taps) == last - first
            for y in range(first, last):
                whole = {i: x for i, x in reads(y, down, taps, pad0, up, size).items()
                         if 0 <= x < size}  # fmt: skip
                piece = reads(y - first, down, taps, new0, up, b - a)
                assert whole == {i: x + a for i, x in piece.items() if 0 <= x < b - a}


def test_border_supplies_every_position_that_pads_reach():
    for up, pad0, pad1, size in itertools.product(range(1, 5), range(-3, 8), range(-3, 8), (3, 4)):
        before, after = geometry.border(pad0, pad1, up)
        positions = range(-pad0, size * up + pad1)
        samples = {p // up for p in positions if p % up == 0}
        missing = {s for s in samples if not 0 <= s < size}
        assert before == max((-s for s in missing if s < 0), default=0)
        assert after == max((s - size + 1 for s in missing if s >= size), default=0)


def test_ceil_mode_rounds_up_at_every_size_and_moves_no_sample():
    for taps, factor, size in itertools.product(range(1, 9), range(1, 7), range(1, 20)):
        floor0, floor1 = geometry.downsample_pad(taps, factor)
        pad0, pad1 = geometry.downsample_pad(taps, factor, ceil_mode=True)
        assert pad0 == floor0
        assert count_outputs(size, 1, factor, floor0, floor1, taps) == size // factor
        assert count_outputs(size, 1, factor, pad0, pad1, taps) == math.ceil(size / factor)


@pytest.mark.parametrize(("up", "down"), RATES)
def test_shift_is_where_the_weight_of_what_is_read_lies(up, down):
    """Of taps that were convolved with two boxes of ``up``, whose phases all have one centroid."""
    for length, pad0 in itertools.product((1, 2, 5), (-3, 0, 2)):
        taps = [1.0 + i * i for i in range(length)]
        for _ in range(2):
            taps = [sum(taps[max(0, i - up + 1) : i + 1]) for i in range(len(taps) + up - 1)]
        total, middle = sum(taps), (len(taps) - 1) / 2
        centroid = sum(tap * (i - middle) for i, tap in enumerate(taps)) / total
        shift = geometry.shift(len(taps), up, down, pad0, centroid)
        for y in range(2 * up):
            read = reads(y, down, len(taps), pad0, up, 0).items()
            weight = sum(taps[i] for i, _ in read)
            assert weight == pytest.approx(total / up)
            found = sum(taps[i] * x for i, x in read) / weight
            assert found == pytest.approx((y + 0.5) * down / up - 0.5 + shift)
        if centroid == 0:
            assert shift == geometry.shift(len(taps), up, down, pad0)
