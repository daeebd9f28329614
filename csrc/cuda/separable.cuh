// SPDX-License-Identifier: BSD-3-Clause
//
// Tile kernels of separable taps.
//
// Vertical first, because a thread that owns columns needs nobody else for it: it
// loads rows with wide aligned accesses straight into registers and keeps the rows
// that the next step needs. Only the sums pass through shared memory, once, to
// reach the threads that filter them horizontally. Two buffers take turns, so one
// barrier per step is enough: a buffer is written again only after the barrier of
// the step between, which every reader has passed.
#pragma once

#include "tile_parts.cuh"

namespace resample_layers {

// One axis' taps to shared memory. Returns whether all that this thread loads are finite.
template <int kTaps>
DEVICE bool load_taps(float* shared, const void* taps, int count, bool flip) {
  bool finite = true;
  for (int t = threadIdx.x; t < kTaps; t += blockDim.x) {
    const float tap = window_tap(taps, count, flip, t);
    shared[t] = tap;
    finite = finite && is_finite(tap);
  }
  return finite;
}

// One thread's columns or channels: a window of rows that moves down the image, and the rows
// after it, on their way.
template <class T, class S>
struct Walker {
  static constexpr int kLoad = S::kLoad;

  RowReader<T, kLoad> rows;
  float window[S::kWindow][kLoad];
  Packed<T, kLoad> coming[S::kNew];

  DEVICE explicit Walker(const RowReader<T, kLoad>& reader) : rows(reader) {}

  DEVICE void unpack(const Packed<T, kLoad>& packed, int i) {
#pragma unroll
    for (int e = 0; e < kLoad; ++e) window[i][e] = packed.get(e);
  }

  DEVICE void load_coming() {
#pragma unroll
    for (int i = 0; i < S::kNew; ++i) coming[i] = rows.load_row();
  }

  // Everything the first step needs is on its way before anything waits.
  DEVICE void load_first() {
    Packed<T, kLoad> carried[S::kCarry > 0 ? S::kCarry : 1];
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) carried[i] = rows.load_row();
    load_coming();
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) unpack(carried[i], i);
  }

  DEVICE void take_coming() {
#pragma unroll
    for (int i = 0; i < S::kNew; ++i) unpack(coming[i], S::kCarry + i);
  }

  // Row k of the step.
  DEVICE void filter(int k, const float (&f)[S::kTapsY], int taps, float (&sum)[kLoad]) const {
#pragma unroll
    for (int e = 0; e < kLoad; ++e) sum[e] = 0.0f;
#pragma unroll
    for (int t = 0; t < S::kTapsY; ++t) {
      if ((k * S::kDownY + t) % S::kUpY != 0) continue;
      if (S::kExact || t < taps) {
#pragma unroll
        for (int e = 0; e < kLoad; ++e) {
          sum[e] += f[t] * window[(k * S::kDownY + t) / S::kUpY][e];
        }
      }
    }
  }

  DEVICE void advance() {
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) {
#pragma unroll
      for (int e = 0; e < kLoad; ++e) window[i][e] = window[i + S::kNew][e];
    }
  }
};

// Which runs of a step a thread filters. `split` neighbouring groups of threads share
// the rows, so that about as many threads filter horizontally as vertically, and a
// thread's runs lie below each other.
struct Runs {
  int first, stride;  // along x
  int row;            // first row; then every split-th

  DEVICE Runs(int index, int count, int groups, int split) {
    const int part = index / groups;
    row = split == 1 ? 0 : part;
    first = split == 1 ? index : row < split ? index - part * groups : groups;
    stride = split == 1 ? count : groups;
  }
};

// --------------------------------------------------------- separable, contiguous

// One run of outputs from its window in shared memory.
template <class S, int kPhase>
DEVICE void filter_run(const float* window, const float (&f)[S::kTapsX], int taps,
                       float (&sum)[S::kRun]) {
#pragma unroll
  for (int r = 0; r < S::kRun; ++r) sum[r] = 0.0f;
#pragma unroll
  for (int j = 0; j < window_of(S::kRun, kPhase, S::kUpX, S::kDownX, S::kTapsX); ++j) {
    // The last output of the run is the one that meets sample j with its earliest tap.
    const int first_tap = j * S::kUpX - kPhase - (S::kRun - 1) * S::kDownX;
    if (S::kExact || first_tap < taps) {
      const float sample = window[padded_index(j, S::kPeriod)];
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        const int t = j * S::kUpX - kPhase - r * S::kDownX;
        if (t < 0 || t >= S::kTapsX) continue;
        if (S::kExact || t < taps) sum[r] += f[t] * sample;
      }
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void separable_contiguous(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUpX);
  const TileThread at(a);
  float* const taps_x = shared;
  float* const taps_y = shared + S::kTaps;
  float* const sums = shared + 2 * S::kTaps + at.slot * 2 * a.slot_floats;
  const bool finite_x = load_taps<S::kTapsX>(taps_x, a.taps_x, a.kw, a.flip);
  const bool finite_y = load_taps<S::kTapsY>(taps_y, a.taps_y, a.kh, a.flip);

  // Planes
  int channel;
  const int64_t n = divide(at.plane, a.c, &channel);
  const int64_t out_offset = at.plane * a.out_h * a.out_w;
  T* const out = static_cast<T*>(a.output) + out_offset;
  const int misalignment =
      static_cast<int>(reinterpret_cast<uintptr_t>(out) / sizeof(T)) & (S::kVector - 1);
  const float scale = at.active ? epilogue.scale(n, channel) : 1.0f;
  const float bias = at.active ? epilogue.bias(channel) : 0.0f;
  const float strength = epilogue.strength();
  const float* const noise = epilogue.noise_image(n);

  // Runs begin at aligned outputs: up to `slack` outputs before the tile's first one,
  // differently in each row. start: upsampled position that the row's first output reads.
  auto early = [&](int y) {
    return a.slack == 0 ? 0 : (misalignment + y * a.out_w) & (S::kVector - 1);
  };
  auto start = [&](int y) { return (at.x0 - early(y)) * S::kDownX - a.pad_x; };
  // Where this thread's sums of a row go; the same in all rows unless rows shift.
  int to[S::kLoad];
  auto find_columns = [&](int column, int y) {
    const int index = column - (start(y) >> kLogUp) + a.margin;
#pragma unroll
    for (int e = 0; e < S::kLoad; ++e) to[e] = padded_index(index + e, S::kPeriod);
  };

  // First rows, on their way before anything waits
  const int lowest = ((at.x0 - a.slack) * S::kDownX - a.pad_x) >> kLogUp;
  const int column = (lowest & ~(S::kLoad - 1)) + at.lane * S::kLoad;
  const T* const plane =
      static_cast<const T*>(a.input) + n * a.in_stride_n + channel * a.in_stride_c;
  Walker<T, S> walker(RowReader<T, S::kLoad>(plane + column, a.in_stride_h, a.in_h,
                                             at.active && column >= 0 && column < a.in_w,
                                             (at.y0 * S::kDownY - a.pad_y) >> log2_of(S::kUpY)));
  walker.load_first();
  if (BARRIER_ANY(1, !finite_x || !finite_y)) {
    if (at.active) {
      exact_tile<T>(exact_filter<S>(a), a, at, Layout::contiguous, epilogue, n, channel, 1,
                    at.lane, a.slot_threads);
    }
    return;
  }

  find_columns(column, 0);
  const Runs runs(at.lane, a.slot_threads, a.groups, a.split);
  auto load_noise = [&](int group, int out_y) {
    NoiseRun<S::kRun, Epilogue> run;
    const int x = at.x0 - early(out_y) + group * S::kRun;
    const bool inside = at.active && group < a.groups &&
                        static_cast<unsigned>(out_y) < static_cast<unsigned>(a.out_h);
    if (inside) run.load(noise, out_y * a.out_w + x, x, a.out_w);
    return run;
  };
  const int y_end = min(at.y0 + a.tile_h, a.out_h);
  float* buffer = sums;
  float* other = sums + a.slot_floats;
  for (int y = at.y0; y < y_end; y += S::kRows) {
    // Vertically
    walker.take_coming();
    if (at.active) {
      float f[S::kTapsY];
      taps_to_registers(taps_y, f);
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
        float sum[S::kLoad];
        walker.filter(k, f, a.kh, sum);
        if (a.slack != 0) find_columns(column, y + k);
        float* const row = buffer + k * a.pitch;
#pragma unroll
        for (int e = 0; e < S::kLoad; ++e) row[to[e]] = sum[e];
      }
    }
    walker.advance();
    NoiseRun<S::kRun, Epilogue> coming = load_noise(runs.first, y + runs.row);
    BARRIER(2);
    if (y + S::kRows < y_end) walker.load_coming();

    // Horizontally
    if (at.active) {
      float f[S::kTapsX];
      taps_to_registers(taps_x, f);
      for (int g = runs.first; g < a.groups; g += runs.stride) {
        const int offset = g * S::kRun;
        if (offset >= a.tile_w) continue;
        const float* const column_window =
            buffer + padded_index(a.margin + offset * S::kDownX / S::kUpX, S::kPeriod);
        for (int k = runs.row; k < S::kRows; k += a.split) {
          const NoiseRun<S::kRun, Epilogue> here = coming;
          coming = k + a.split < S::kRows ? load_noise(g, y + k + a.split)
                                          : load_noise(g + runs.stride, y + runs.row);
          const int out_y = y + k;
          const int x = at.x0 - early(out_y) + offset;
          if (static_cast<unsigned>(out_y) >= static_cast<unsigned>(a.out_h)) continue;
          if (x >= a.out_w || x + S::kRun <= 0) continue;
          const float* const window = column_window + k * a.pitch;
          float sum[S::kRun];
          with_phase<S::kUpX>(start(out_y) & (S::kUpX - 1), [&](auto phase) {
            filter_run<S, decltype(phase)::value>(window, f, a.kw, sum);
          });
          store_run<T, S::kRun>(out + out_y * a.out_w, x, a.out_w, sum, epilogue, here, strength,
                                scale, bias);
        }
      }
    }
    float* const written = buffer;
    buffer = other;
    other = written;
  }
}

// ------------------------------------------------------ separable, channels_last

template <class S, int kPhase>
DEVICE void filter_pixels(const float* window, int vector, int vectors, int channels,
                          const float (&f)[S::kTapsX], int taps,
                          float (&sum)[S::kRun][S::kLoad]) {
#pragma unroll
  for (int r = 0; r < S::kRun; ++r) {
#pragma unroll
    for (int e = 0; e < S::kLoad; ++e) sum[r][e] = 0.0f;
  }
#pragma unroll
  for (int j = 0; j < window_of(S::kRun, kPhase, S::kUpX, S::kDownX, S::kTapsX); ++j) {
    const int first_tap = j * S::kUpX - kPhase - (S::kRun - 1) * S::kDownX;
    const bool read_by_none = j * S::kUpX < kPhase;
    if (!read_by_none && (S::kExact || first_tap < taps)) {
      float sample[S::kLoad];
      Channels<S::kLoad>::read(window + j * channels, vector, vectors, sample);
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        const int t = j * S::kUpX - kPhase - r * S::kDownX;
        if (t < 0 || t >= S::kTapsX) continue;
        if (S::kExact || t < taps) {
#pragma unroll
          for (int e = 0; e < S::kLoad; ++e) sum[r][e] += f[t] * sample[e];
        }
      }
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void separable_channels_last(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUpX);
  const TileThread at(a);
  const ChannelThread<S::kLoad> mine(a, at);
  float* const taps_x = shared;
  float* const taps_y = shared + S::kTaps;
  float* const sums = shared + 2 * S::kTaps;
  const bool finite_x = load_taps<S::kTapsX>(taps_x, a.taps_x, a.kw, a.flip);
  const bool finite_y = load_taps<S::kTapsY>(taps_y, a.taps_y, a.kh, a.flip);

  // Channels
  T* const out = static_cast<T*>(a.output) + mine.n * a.out_h * a.out_w * a.c + mine.channel;
  float scale[S::kLoad], bias[S::kLoad];
#pragma unroll
  for (int e = 0; e < S::kLoad; ++e) {
    scale[e] = mine.active ? epilogue.scale(mine.n, mine.channel + e) : 1.0f;
    bias[e] = mine.active ? epilogue.bias(mine.channel + e) : 0.0f;
  }
  const float strength = epilogue.strength();
  const float* const noise = epilogue.noise_image(mine.n);

  // First rows, on their way before anything waits
  const int start = at.x0 * S::kDownX - a.pad_x;
  const int column = (start >> kLogUp) + mine.column;
  const T* const top = static_cast<const T*>(a.input) + mine.n * a.in_stride_n +
                       static_cast<int64_t>(column) * a.in_stride_w + mine.channel;
  Walker<T, S> walker(RowReader<T, S::kLoad>(top, a.in_stride_h, a.in_h,
                                             mine.active && column >= 0 && column < a.in_w,
                                             (at.y0 * S::kDownY - a.pad_y) >> log2_of(S::kUpY)));
  walker.load_first();
  if (BARRIER_ANY(3, !finite_x || !finite_y)) {
    if (mine.active) {
      exact_tile<T>(exact_filter<S>(a), a, at, Layout::channels_last, epilogue, mine.n,
                    mine.channel, S::kLoad, mine.column, a.columns);
    }
    return;
  }

  const Runs runs(mine.column, a.columns, a.groups, a.split);
  auto load_noise = [&](int group, int out_y) {
    NoiseRun<S::kRun, Epilogue> run;
    const int x = at.x0 + group * S::kRun;
    const bool inside = mine.active && group < a.groups &&
                        static_cast<unsigned>(out_y) < static_cast<unsigned>(a.out_h);
    if (inside) run.load(noise, out_y * a.out_w + x, x, a.out_w);
    return run;
  };
  const int y_end = min(at.y0 + a.tile_h, a.out_h);
  float* buffer = sums;
  float* other = sums + a.slot_floats;
  for (int y = at.y0; y < y_end; y += S::kRows) {
    // Vertically
    walker.take_coming();
    if (mine.active) {
      float f[S::kTapsY];
      taps_to_registers(taps_y, f);
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
        float sum[S::kLoad];
        walker.filter(k, f, a.kh, sum);
        Channels<S::kLoad>::write(buffer + k * a.pitch + mine.column * a.channels, mine.vector,
                                  mine.vectors, sum);
      }
    }
    walker.advance();
    NoiseRun<S::kRun, Epilogue> coming = load_noise(runs.first, y + runs.row);
    BARRIER(4);
    if (y + S::kRows < y_end) walker.load_coming();

    // Horizontally: a thread keeps its channels
    if (mine.active) {
      float f[S::kTapsX];
      taps_to_registers(taps_x, f);
      for (int g = runs.first; g < a.groups; g += runs.stride) {
        const int offset = g * S::kRun;
        const int x = at.x0 + offset;
        if (offset >= a.tile_w || x >= a.out_w) continue;
        const float* const column_window = buffer + offset * S::kDownX / S::kUpX * a.channels;
        for (int k = runs.row; k < S::kRows; k += a.split) {
          const NoiseRun<S::kRun, Epilogue> here = coming;
          coming = k + a.split < S::kRows ? load_noise(g, y + k + a.split)
                                          : load_noise(g + runs.stride, y + runs.row);
          const int out_y = y + k;
          if (static_cast<unsigned>(out_y) >= static_cast<unsigned>(a.out_h)) continue;
          const float* const window = column_window + k * a.pitch;
          float sum[S::kRun][S::kLoad];
          with_phase<S::kUpX>(start & (S::kUpX - 1), [&](auto phase) {
            filter_pixels<S, decltype(phase)::value>(window, mine.vector, mine.vectors,
                                                     a.channels, f, a.kw, sum);
          });
          const int position = out_y * a.out_w + x;
#pragma unroll
          for (int r = 0; r < S::kRun; ++r) {
            if (x + r < a.out_w) {
              store_pixel<T, S::kLoad>(out + (position + r) * a.c, sum[r], epilogue,
                                       strength * here.of(r), scale, bias);
            }
          }
        }
      }
    }
    float* const written = buffer;
    buffer = other;
    other = written;
  }
}

}  // namespace resample_layers
