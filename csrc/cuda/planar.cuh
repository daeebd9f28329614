// SPDX-License-Identifier: BSD-3-Clause
//
// Tile kernels of a small 2-D kernel, which need not be an outer product. The tile's
// rows go to shared memory as float; then each thread computes `rows` times `run`
// outputs, so that a sample read once serves many of them.
#pragma once

#include "tile_parts.cuh"

namespace resample_layers {

// Returns whether all taps that this thread loads are finite.
template <class S>
DEVICE bool load_planar_taps(float* shared, const TileArgs& a) {
  const float* const kernel = static_cast<const float*>(a.kernel);
  bool finite = true;
  for (int t = threadIdx.x; t < S::kTaps * S::kTaps; t += blockDim.x) {
    const int i = t / S::kTaps, j = t % S::kTaps;
    const int tap_y = a.flip ? i : a.kh - 1 - i;
    const int tap_x = a.flip ? j : a.kw - 1 - j;
    const float tap = i < a.kh && j < a.kw ? kernel[tap_y * a.kw + tap_x] : 0.0f;
    shared[t] = tap;
    finite = finite && is_finite(tap);
  }
  return finite;
}

template <class T, class S>
DEVICE void load_tile_rows(RowReader<T, S::kLoad>& rows, int count, float* to, int pitch,
                           int index, int column, int vector, int vectors) {
  // Rows in flight: of one element each it takes more to keep memory busy. A tile has 19 rows,
  // or 18, or 10 (34 where it halves the image).
  constexpr int kAhead = S::kLoad == 1 ? 10 : 4;
  for (int i = 0; i < count; i += kAhead) {
    Packed<T, S::kLoad> packed[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) packed[j] = rows.load_row();
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (i + j >= count) break;
      float value[S::kLoad];
#pragma unroll
      for (int e = 0; e < S::kLoad; ++e) value[e] = packed[j].get(e);
      float* const row = to + (i + j) * pitch;
      if constexpr (S::v.layout == Layout::contiguous) {
#pragma unroll
        for (int e = 0; e < S::kLoad; ++e) row[padded_index(index + e, S::kPeriod)] = value[e];
      } else {
        Channels<S::kLoad>::write(row + column * vectors * S::kLoad, vector, vectors, value);
      }
    }
  }
}

// rows x run outputs of one thread. read(row, column, sample): a sample of the window.
template <class S, int kPhase, bool kFull, class Read, int kChannels>
DEVICE void filter_planar(const float (&f)[S::kTaps * S::kTaps], int kh, int kw, const Read& read,
                          float (&sum)[S::kRows][S::kRun][kChannels]) {
#pragma unroll
  for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
    for (int r = 0; r < S::kRun; ++r) {
#pragma unroll
      for (int e = 0; e < kChannels; ++e) sum[k][r][e] = 0.0f;
    }
  }
#pragma unroll
  for (int i = 0; i < S::kWindow; ++i) {
#pragma unroll
    for (int j = 0; j < window_of(S::kRun, kPhase, S::kUp, S::kDown, S::kTaps); ++j) {
      if (j * S::kUp < kPhase) continue;
      const bool row_used = kFull || i * S::kUp - (S::kRows - 1) * S::kDown < kh;
      const bool column_used = kFull || j * S::kUp - kPhase - (S::kRun - 1) * S::kDown < kw;
      if (!row_used || !column_used) continue;
      float sample[kChannels];
      read(i, j, sample);
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
        const int t = i * S::kUp - k * S::kDown;
        if (t < 0 || t >= S::kTaps) continue;
#pragma unroll
        for (int r = 0; r < S::kRun; ++r) {
          const int s = j * S::kUp - kPhase - r * S::kDown;
          if (s < 0 || s >= S::kTaps) continue;
          if (kFull || (t < kh && s < kw)) {
#pragma unroll
            for (int e = 0; e < kChannels; ++e) sum[k][r][e] += f[t * S::kTaps + s] * sample[e];
          }
        }
      }
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void planar_contiguous(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUp);
  const TileThread at(a);
  float* const taps = shared;
  float* const tile = shared + S::kTaps * S::kTaps + at.slot * a.slot_floats;
  const bool finite = load_planar_taps<S>(taps, a);

  // Load
  int channel;
  const int64_t n = divide(at.plane, a.c, &channel);
  const int start = at.x0 * S::kDown - a.pad_x;
  const int lowest = start >> kLogUp;
  const int column = (lowest & ~(S::kLoad - 1)) + at.lane * S::kLoad;
  const T* const plane =
      static_cast<const T*>(a.input) + n * a.in_stride_n + channel * a.in_stride_c;
  RowReader<T, S::kLoad> rows(plane + column, a.in_stride_h, a.in_h,
                              column >= 0 && column < a.in_w,
                              (at.y0 * S::kDown - a.pad_y) >> kLogUp);
  if (at.active) {
    load_tile_rows<T, S>(rows, window_of(a.tile_h, 0, S::kUp, S::kDown, S::kTaps), tile, a.pitch,
                         column - lowest + a.margin, 0, 0, 0);
  }
  const bool exact = BARRIER_ANY(5, !finite);
  if (!at.active) return;
  if (exact) {
    exact_tile<T>(exact_filter<S>(a), a, at, Layout::contiguous, epilogue, n, channel, 1, at.lane,
                  a.slot_threads);
    return;
  }

  // Filter
  float f[S::kTaps * S::kTaps];
  taps_to_registers(taps, f);
  T* const out = static_cast<T*>(a.output) + at.plane * a.out_h * a.out_w;
  const float scale = epilogue.scale(n, channel);
  const float bias = epilogue.bias(channel);
  const float strength = epilogue.strength();
  const float* const noise = epilogue.noise_image(n);
  for (int i = at.lane; i < a.tile_h / S::kRows * a.groups; i += a.slot_threads) {
    const int k = static_cast<int>(__umulhi(static_cast<uint32_t>(i), a.groups_reciprocal));
    const int offset = (i - k * a.groups) * S::kRun;
    const int y = at.y0 + k * S::kRows;
    const int x = at.x0 + offset;
    if (offset >= a.tile_w || x >= a.out_w || y >= a.out_h) continue;
    const float* const window =
        tile + k * S::kNew * a.pitch +
        padded_index(a.margin + offset * S::kDown / S::kUp, S::kPeriod);
    float sum[S::kRows][S::kRun][1];
    auto read = [&](int row, int j, float(&sample)[1]) {
      sample[0] = window[row * a.pitch + padded_index(j, S::kPeriod)];
    };
    with_phase<S::kUp>(start & (S::kUp - 1), [&](auto phase) {
      if (a.kh == S::kTaps && a.kw == S::kTaps) {
        filter_planar<S, decltype(phase)::value, true>(f, a.kh, a.kw, read, sum);
      } else {
        filter_planar<S, decltype(phase)::value, false>(f, a.kh, a.kw, read, sum);
      }
    });
#pragma unroll
    for (int row = 0; row < S::kRows; ++row) {
      if (static_cast<unsigned>(y + row) >= static_cast<unsigned>(a.out_h)) continue;
      float values[S::kRun];
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) values[r] = sum[row][r][0];
      NoiseRun<S::kRun, Epilogue> run;
      run.load(noise, (y + row) * a.out_w + x, x, a.out_w);
      store_run<T, S::kRun>(out + (y + row) * a.out_w, x, a.out_w, values, epilogue, run, strength,
                            scale, bias);
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void planar_channels_last(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUp);
  const TileThread at(a);
  const ChannelThread<S::kLoad> mine(a, at);
  float* const taps = shared;
  float* const tile = shared + S::kTaps * S::kTaps;
  const bool finite = load_planar_taps<S>(taps, a);

  // Load
  const int start = at.x0 * S::kDown - a.pad_x;
  const int column = (start >> kLogUp) + mine.column;
  const T* const top = static_cast<const T*>(a.input) + mine.n * a.in_stride_n +
                       static_cast<int64_t>(column) * a.in_stride_w + mine.channel;
  RowReader<T, S::kLoad> rows(top, a.in_stride_h, a.in_h, column >= 0 && column < a.in_w,
                              (at.y0 * S::kDown - a.pad_y) >> kLogUp);
  if (mine.active) {
    load_tile_rows<T, S>(rows, window_of(a.tile_h, 0, S::kUp, S::kDown, S::kTaps), tile, a.pitch,
                         0, mine.column, mine.vector, mine.vectors);
  }
  const bool exact = BARRIER_ANY(6, !finite);
  if (!mine.active) return;
  if (exact) {
    exact_tile<T>(exact_filter<S>(a), a, at, Layout::channels_last, epilogue, mine.n, mine.channel,
                  S::kLoad, mine.column, a.columns);
    return;
  }

  // Filter
  float f[S::kTaps * S::kTaps];
  taps_to_registers(taps, f);
  T* const out = static_cast<T*>(a.output) + mine.n * a.out_h * a.out_w * a.c + mine.channel;
  float scale[S::kLoad], bias[S::kLoad];
#pragma unroll
  for (int e = 0; e < S::kLoad; ++e) {
    scale[e] = epilogue.scale(mine.n, mine.channel + e);
    bias[e] = epilogue.bias(mine.channel + e);
  }
  const float strength = epilogue.strength();
  const float* const noise = epilogue.noise_image(mine.n);
  for (int i = mine.column; i < a.tile_h / S::kRows * a.groups; i += a.columns) {
    const int k = static_cast<int>(__umulhi(static_cast<uint32_t>(i), a.groups_reciprocal));
    const int offset = (i - k * a.groups) * S::kRun;
    const int y = at.y0 + k * S::kRows;
    const int x = at.x0 + offset;
    if (offset >= a.tile_w || x >= a.out_w || y >= a.out_h) continue;
    const float* const window =
        tile + k * S::kNew * a.pitch + offset * S::kDown / S::kUp * a.channels;
    float sum[S::kRows][S::kRun][S::kLoad];
    auto read = [&](int row, int j, float(&sample)[S::kLoad]) {
      Channels<S::kLoad>::read(window + row * a.pitch + j * a.channels, mine.vector, mine.vectors,
                               sample);
    };
    with_phase<S::kUp>(start & (S::kUp - 1), [&](auto phase) {
      if (a.kh == S::kTaps && a.kw == S::kTaps) {
        filter_planar<S, decltype(phase)::value, true>(f, a.kh, a.kw, read, sum);
      } else {
        filter_planar<S, decltype(phase)::value, false>(f, a.kh, a.kw, read, sum);
      }
    });
#pragma unroll
    for (int row = 0; row < S::kRows; ++row) {
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        if (static_cast<unsigned>(y + row) >= static_cast<unsigned>(a.out_h)) continue;
        if (x + r >= a.out_w) continue;
        const int position = (y + row) * a.out_w + x + r;
        const float of_pixel = noise == nullptr ? 0.0f : strength * noise[position];
        store_pixel<T, S::kLoad>(out + position * a.c, sum[row][r], epilogue, of_pixel, scale,
                                bias);
      }
    }
  }
}

}  // namespace resample_layers
