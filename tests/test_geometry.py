# SPDX-License-Identifier: BSD-3-Clause
"""The integer formulas, against counting."""

import itertools
import math

import pytest

from resample_layers import geometry

RATES = [
    (1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (5, 2), (2, 3), (3, 2), (4, 2), (2, 4), (4, 6), (6, 4),
]  # fmt: skip


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


def test_a_table_of_many_phases_is_the_searched_one():
    for up, down in RATES:
        for taps, pad0 in itertools.product((1, 2, 5, 8), (-3, 0, 4)):
            searched = geometry.polyphase(up, down, pad0, 0, taps).taps
            assert geometry._sparse_table(up, down, pad0, taps) == searched


def test_reach_is_where_a_tap_meets_a_sample():
    for up, down in RATES:
        for taps, pad0, size, steps in itertools.product((1, 5), (-7, 0, 6), (0, 1, 4), (0, 1, 5)):
            plan = geometry.polyphase(up, down, pad0, 0, taps)
            for tap in itertools.chain(*plan.taps):
                met = [t for t in range(steps) if 0 <= tap.offset + plan.stride * t < size]
                first, last = plan.reach(tap, size, steps)
                assert 0 <= first <= last <= steps
                assert list(range(first, last)) == met


def test_may_miss_says_whether_a_window_meets_no_sample():
    for up, taps, pad0, pad1 in itertools.product((1, 2, 3), (1, 2, 4), range(-3, 6), range(-3, 6)):
        samples = set(range(0, 4 * up, up))
        starts = range(-pad0, 4 * up + pad1 - taps + 1)
        missed = any(samples.isdisjoint(range(start, start + taps)) for start in starts)
        assert geometry.may_miss(up, pad0, pad1, taps) is missed


def test_both_axes_are_two_of_one():
    for rates in (((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 3)), ((2, 3), (5, 4))):
        size, pad, kernel = (9, 17), (1, -2, 6, 11), (4, 7)  # (h, w), (x0, x1, y0, y1), (kh, kw)
        (up_x, up_y), (down_x, down_y) = rates
        out = geometry.output_sizes(size, *rates, pad, kernel)
        assert out == (
            geometry.output_size(9, up_y, down_y, 6, 11, 4),
            geometry.output_size(17, up_x, down_x, 1, -2, 7),
        )
        assert geometry.adjoint_pads(size, out, *rates, pad, kernel) == (
            *geometry.adjoint_pad(17, out[1], up_x, down_x, 1, 7),
            *geometry.adjoint_pad(9, out[0], up_y, down_y, 6, 4),
        )


def test_pads_of_layers_give_the_size_and_keep_the_place():
    for taps, rate, size in itertools.product(range(1, 9), range(1, 7), (1, 2, 6, 13)):
        odd = (taps - rate) % 2  # a half sample goes before the image
        pad0, pad1 = geometry.upsample_pad(taps, rate)
        assert count_outputs(size, rate, 1, pad0, pad1, taps) == size * rate
        assert geometry.shift(taps, rate, 1, pad0) == -odd / (2 * rate)
        pad0, pad1 = geometry.downsample_pad(taps, rate)
        assert count_outputs(size, 1, rate, pad0, pad1, taps) == size // rate
        assert geometry.shift(taps, 1, rate, pad0) == -odd / 2
        pad0, pad1 = geometry.rational_pad(taps)
        assert taps - 1 - pad0 == (taps - 1) // 2  # the first output has its middle tap at 0
        for up in (1, 2, 3):
            outputs = count_outputs(size, up, rate, pad0, pad1, taps)
            assert outputs == math.ceil(size * up / rate)


def test_pads_beside_a_convolution_give_the_size_and_keep_the_place():
    for taps, rate, kernel, size in itertools.product(range(1, 7), (1, 2, 3), (1, 2, 3, 5), (3, 8)):
        before = geometry.smooth_pad(taps, rate, 1, kernel, after=True)
        wide = (size - 1) * rate + kernel
        assert count_outputs(wide, 1, 1, *before, taps) == size * rate
        assert before[0] - before[1] == (taps - rate - kernel + 1) % 2
        pads = geometry.smooth_pad(taps, 1, rate, kernel, after=False)
        smooth = count_outputs(size, 1, 1, *pads, taps)
        assert count_outputs(smooth, 1, rate, 0, 0, kernel) == size // rate
        assert pads[0] - pads[1] == (taps - rate + kernel - 1) % 2


def test_pads_around_an_activation_give_the_size_and_keep_the_place():
    for taps, more, up, down in itertools.product((1, 4, 7), (1, 4, 6), (1, 2, 3), (1, 2, 3)):
        pad0, pad1 = geometry.filtered_pad(taps, more, up, down)
        for size in (3, 8):
            middle = count_outputs(size, up, 1, pad0, pad1, taps)
            assert count_outputs(middle, 1, down, 0, 0, more) == size * up // down
        k = taps + more - 1
        assert geometry.shift(k, up, down, pad0) == ((k + up - down) % 2 - 1) / (2 * up)


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


def test_shift_is_where_the_weight_of_what_is_read_lies():
    """Of taps that were convolved with two boxes of ``up``, whose phases all have one centroid."""
    for up, down in RATES:
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


def test_polyphase_visits_exactly_the_samples_of_the_definition():
    for up, down in RATES:
        for taps, pad0, pad1, size in itertools.product(
            (1, 2, 5), (-3, 0, 2), (-2, 0, 12), (1, 4, 9)
        ):
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
            assert plan.before == max(0, -min(offsets, default=0))
            assert plan.after >= 0
            if offsets:
                assert max(offsets) + plan.stride * (steps - 1) < size + plan.after


def test_adjoint_pads_transpose_the_reads():
    for up, down in RATES:
        for taps, pad0, pad1, size in itertools.product(
            (1, 2, 5), (-3, 0, 2), (-2, 0, 4), (1, 4, 9)
        ):
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


def test_row_range_cuts_the_op_into_pieces():
    for up, down in RATES:
        for taps, pad0, pad1, size in itertools.product((1, 2, 5), (-3, 0, 6), (-2, 4), (1, 4)):
            out = count_outputs(size, up, down, pad0, pad1, taps)
            for first, last in itertools.combinations(range(out + 1), 2):
                a, b, new0, new1 = geometry.row_range(size, first, last, up, down, pad0, taps)
                # The samples that stand between the first place and the last one, and no more
                places = range(first * down - pad0, (last - 1) * down + taps - pad0)
                standing = [x for x in range(size) if x * up in places]
                assert list(range(a, b)) == standing
                assert 0 <= a <= b <= size
                assert count_outputs(b - a, up, down, new0, new1, taps) == last - first
                for y in range(first, last):
                    whole = {i: x for i, x in reads(y, down, taps, pad0, up, size).items()
                             if 0 <= x < size}  # fmt: skip
                    piece = reads(y - first, down, taps, new0, up, b - a)
                    assert whole == {i: x + a for i, x in piece.items() if 0 <= x < b - a}
