// SPDX-License-Identifier: BSD-3-Clause
//
// Which terms a sum of a filtered activation has, for one axis: the sums of the two
// filters and those of their adjoints. A term is a pair of a tap and a sample; none
// of them is an inserted zero or lies beyond an end. What is read beyond an end is a
// term of the end sample where the ends are continued (`replicate`), and no term
// otherwise.
//
// Names: a sample is one of the input, a position one of the signal between the
// filters, an output one of the result.
#pragma once

#include <cstdint>

#include "device.cuh"

namespace resample_layers {

struct FilteredAxis {
  int64_t in, mid, out;          // samples, positions, outputs
  int64_t up, down;              // factors
  int64_t up_taps, down_taps;    //
  int64_t up_pad, down_pad;      // before the first one; may be negative
  bool replicate;
};

// Neighbouring elements of an axis.
struct Span {
  int64_t first, count;
};

DEVICE int64_t floor_div(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return q * b > a ? q - 1 : q;
}
DEVICE int64_t ceil_quotient(int64_t a, int64_t b) { return -floor_div(-a, b); }

DEVICE int64_t clamp_to(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// What exists of first ... last, both included: the ends stand for what lies beyond them.
DEVICE Span span_of(int64_t first, int64_t last, int64_t size, bool replicate) {
  if (replicate) {
    first = clamp_to(first, 0, size - 1), last = clamp_to(last, 0, size - 1);
  } else {
    first = first < 0 ? 0 : first, last = last >= size ? size - 1 : last;
  }
  return Span{first, last < first ? 0 : last - first + 1};
}

// The positions that outputs first ... last read.
DEVICE Span positions_of_outputs(const FilteredAxis& a, int64_t first, int64_t last) {
  const int64_t start = first * a.down - a.down_pad;
  return span_of(start, last * a.down - a.down_pad + a.down_taps - 1, a.mid, a.replicate);
}

// The samples that positions read.
DEVICE Span samples_of_positions(const FilteredAxis& a, const Span& positions) {
  if (positions.count == 0) return Span{0, 0};
  const int64_t start = positions.first - a.up_pad;
  const int64_t end = start + positions.count - 1 + a.up_taps - 1;
  const int64_t first = ceil_quotient(start, a.up), last = floor_div(end, a.up);
  if (last < first) return Span{0, 0};  // all of them meet inserted zeros alone
  return span_of(first, last, a.in, a.replicate);
}

// The positions that read samples first ... last.
DEVICE Span positions_of_samples(const FilteredAxis& a, int64_t first, int64_t last) {
  int64_t low = first * a.up + a.up_pad - (a.up_taps - 1);
  int64_t high = last * a.up + a.up_pad;
  if (a.replicate && first == 0) low = 0;
  if (a.replicate && last == a.in - 1) high = a.mid - 1;
  return span_of(low, high, a.mid, false);
}

// The outputs that read positions.
DEVICE Span outputs_of_positions(const FilteredAxis& a, const Span& positions) {
  if (positions.count == 0) return Span{0, 0};
  const int64_t last = positions.first + positions.count - 1;
  int64_t low = ceil_quotient(positions.first + a.down_pad - (a.down_taps - 1), a.down);
  int64_t high = floor_div(last + a.down_pad, a.down);
  if (a.replicate && positions.first == 0) low = 0;
  if (a.replicate && last == a.mid - 1) high = a.out - 1;
  return span_of(low, high, a.out, false);
}

// The structs below go through the terms of one element of a span that a block holds:
// visit(r, f) calls f(tap, index) for each term of element r, where r and index count from the
// first element of their spans. Index is int where every place in the spans' neighbourhood fits.

template <class Index>
DEVICE Index floor_quotient(Index a, Index b) {
  const Index q = a / b;
  return q * b > a ? q - 1 : q;
}

// f(tap, index) where something can be read at `place`.
template <class Index, class F>
DEVICE void read_term(Index place, Index count, bool replicate, Index tap, const F& f) {
  if (replicate) {
    f(tap, place < 0 ? Index(0) : place >= count ? count - 1 : place);
  } else if (place >= 0 && place < count) {
    f(tap, place);
  }
}

// A position reads samples.
template <class Index>
struct PositionTerms {
  Index start, up, taps, count;
  bool replicate;

  DEVICE PositionTerms(const FilteredAxis& a, const Span& positions, const Span& samples)
      : start(static_cast<Index>(positions.first - a.up_pad - samples.first * a.up)),
        up(static_cast<Index>(a.up)),
        taps(static_cast<Index>(a.up_taps)),
        count(static_cast<Index>(samples.count)),
        replicate(a.replicate) {}

  template <class F>
  DEVICE void visit(Index r, const F& f) const {
    Index place = -floor_quotient(-(start + r), up);
#pragma unroll 1
    for (Index t = place * up - (start + r); t < taps; t += up, ++place) {
      read_term(place, count, replicate, taps - 1 - t, f);
    }
  }
};

// An output reads positions.
template <class Index>
struct OutputTerms {
  Index start, down, taps, count;
  bool replicate;

  DEVICE OutputTerms(const FilteredAxis& a, const Span& outputs, const Span& positions)
      : start(static_cast<Index>(outputs.first * a.down - a.down_pad - positions.first)),
        down(static_cast<Index>(a.down)),
        taps(static_cast<Index>(a.down_taps)),
        count(static_cast<Index>(positions.count)),
        replicate(a.replicate) {}

  template <class F>
  DEVICE void visit(Index r, const F& f) const {
    const Index place = start + r * down;
#pragma unroll 1
    for (Index t = 0; t < taps; ++t) read_term(place + t, count, replicate, taps - 1 - t, f);
  }
};

// The gradient of an element gathers what was read from it: from its own place alone or, where
// the ends are continued, from all places beyond the end too. Places count as r does.
template <class Index>
struct Reads {
  Index first = -1, lowest = 0;  // element `first` was read from lowest ... first
  Index last = -1, highest = 0;  // element `last` was read from last ... highest

  DEVICE Reads(bool replicate, const Span& span, int64_t size, int64_t low, int64_t high) {
    if (!replicate || span.count == 0) return;
    if (span.first == 0) first = 0, lowest = static_cast<Index>(low < 0 ? low : 0);
    if (span.first + span.count == size) {
      last = static_cast<Index>(span.count - 1);
      highest = static_cast<Index>((high < size ? size - 1 : high) - span.first);
    }
  }

  DEVICE Index low(Index r) const { return r == first ? lowest : r; }
  DEVICE Index high(Index r) const { return r == last ? highest : r; }
};

// The gradient of a position gathers from outputs.
template <class Index>
struct PositionGradTerms {
  Index start, down, taps, count;
  Reads<Index> reads;

  DEVICE PositionGradTerms(const FilteredAxis& a, const Span& positions, const Span& outputs)
      : start(static_cast<Index>(positions.first + a.down_pad - outputs.first * a.down)),
        down(static_cast<Index>(a.down)),
        taps(static_cast<Index>(a.down_taps)),
        count(static_cast<Index>(outputs.count)),
        reads(a.replicate, positions, a.mid, -a.down_pad,
              (a.out - 1) * a.down - a.down_pad + a.down_taps - 1) {}

  template <class F>
  DEVICE void visit(Index r, const F& f) const {
    const Index high = reads.high(r);
#pragma unroll 1
    for (Index read = reads.low(r); read <= high; ++read) {
      Index place = floor_quotient(start + read, down);
#pragma unroll 1
      for (Index t = start + read - place * down; t < taps; t += down, --place) {
        read_term(place, count, false, taps - 1 - t, f);
      }
    }
  }
};

// The gradient of a sample gathers from positions.
template <class Index>
struct SampleGradTerms {
  Index start, up, taps, count;
  Reads<Index> reads;

  DEVICE SampleGradTerms(const FilteredAxis& a, const Span& samples, const Span& positions)
      : start(static_cast<Index>(samples.first * a.up + a.up_pad - positions.first)),
        up(static_cast<Index>(a.up)),
        taps(static_cast<Index>(a.up_taps)),
        count(static_cast<Index>(positions.count)),
        reads(a.replicate, samples, a.in, -floor_div(a.up_pad, a.up),
              floor_div(a.mid - 1 - a.up_pad + a.up_taps - 1, a.up)) {}

  template <class F>
  DEVICE void visit(Index r, const F& f) const {
    const Index high = reads.high(r);
#pragma unroll 1
    for (Index read = reads.low(r); read <= high; ++read) {
      const Index place = start + read * up;
#pragma unroll 1
      for (Index t = 0; t < taps; ++t) read_term(place - t, count, false, taps - 1 - t, f);
    }
  }
};

}  // namespace resample_layers
