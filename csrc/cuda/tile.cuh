// SPDX-License-Identifier: BSD-3-Clause
//
// The specialised kernels. Factors, taps and tile are compile-time numbers of one
// row of the table (table.cuh), so that every loop over taps is unrolled and a
// tap that would meet an inserted zero is never written down.
//
// Vertical first, because a thread that owns columns needs nobody else for it: it
// loads rows with wide aligned accesses straight into registers and keeps the rows
// that the next step needs. Only the sums pass through shared memory, once, to
// reach the threads that filter them horizontally. Two buffers take turns, so one
// barrier per step is enough: a buffer is written again only after the barrier of
// the step between, which every reader has passed.
#pragma once

#include "device.cuh"
#include "epilogue.cuh"
#include "table.cuh"

namespace resample_layers {

// ---------------------------------------------------------------- shared parts

// The place of a thread: which tile, which plane, which lane of its slot.
struct Place {
  int lane, slot, x0, y0;  // x0, y0: first output of the tile
  int64_t plane;
  bool active;

  DEVICE explicit Place(const TileArgs& a) {
    const uint32_t thread = threadIdx.x;
    const uint32_t block = blockIdx.x;
    const uint32_t rest = block / static_cast<uint32_t>(a.tiles_x);
    const uint32_t group = rest / static_cast<uint32_t>(a.tiles_y);
    slot = static_cast<int>(thread / static_cast<uint32_t>(a.slot_threads));
    lane = static_cast<int>(thread) - slot * a.slot_threads;
    x0 = static_cast<int>(block - rest * a.tiles_x) * a.tile_w;
    y0 = static_cast<int>(rest - group * a.tiles_y) * a.tile_h - a.shift_y;
    plane = static_cast<int64_t>(group) * a.slots + slot;
    active = slot < a.slots && plane < a.planes;
  }
};

// Taps in the order in which a window meets its samples. Zero beyond the last one,
// where they are never used.
template <int kTaps>
DEVICE void load_taps(float* shared, const void* taps, int count, bool flip) {
  const float* const from = static_cast<const float*>(taps);
  for (int t = threadIdx.x; t < kTaps; t += blockDim.x) {
    shared[t] = t < count ? from[flip ? t : count - 1 - t] : 0.0f;
  }
}

template <int kTaps>
DEVICE void taps_to_registers(const float* shared, float (&f)[kTaps]) {
  static_assert(kTaps % 4 == 0, "four at a time");
#pragma unroll
  for (int t = 0; t < kTaps; t += 4) {
    const float4 four = load_shared_4(shared + t);
    f[t] = four.x, f[t + 1] = four.y, f[t + 2] = four.z, f[t + 3] = four.w;
  }
}

// One thread's columns (contiguous) or channels of a column (channels_last): a
// window of rows that moves down the image, and the rows after it, on their way.
template <class T, class S>
struct Walker {
  static constexpr int kLoad = S::kLoad;

  const char* next;   // the row that is loaded next; beyond the image it is not read
  int64_t row_bytes;
  int row, in_h;
  bool inside;        // the columns lie in the image: all of them or, outside, none
  float window[S::kWindow][kLoad];
  Packed<T, kLoad> coming[S::kNew];

  DEVICE void begin(const T* column, int stride_h, int rows, bool columns_inside, int first_row) {
    row_bytes = static_cast<int64_t>(stride_h) * static_cast<int64_t>(sizeof(T));
    next = reinterpret_cast<const char*>(column) + first_row * row_bytes;
    row = first_row;
    in_h = rows;
    inside = columns_inside;
  }

  DEVICE Packed<T, kLoad> load_row() {
    Packed<T, kLoad> packed;
    packed.clear();
    if (inside && static_cast<unsigned>(row) < static_cast<unsigned>(in_h)) {
      packed.load(reinterpret_cast<const T*>(next));
    }
    next += row_bytes;
    ++row;
    return packed;
  }

  DEVICE void unpack(const Packed<T, kLoad>& packed, int i) {
#pragma unroll
    for (int e = 0; e < kLoad; ++e) window[i][e] = packed.get(e);
  }

  DEVICE void load_coming() {
#pragma unroll
    for (int i = 0; i < S::kNew; ++i) coming[i] = load_row();
  }

  // Everything the first step needs is on its way before anything waits.
  DEVICE void load_first() {
    Packed<T, kLoad> carried[S::kCarry > 0 ? S::kCarry : 1];
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) carried[i] = load_row();
    load_coming();
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) unpack(carried[i], i);
  }

  DEVICE void take_coming() {
#pragma unroll
    for (int i = 0; i < S::kNew; ++i) unpack(coming[i], S::kCarry + i);
  }

  // Row k of the step.
  DEVICE void filter(int k, const float (&f)[S::kTaps], int taps, float (&sum)[kLoad]) const {
#pragma unroll
    for (int e = 0; e < kLoad; ++e) sum[e] = 0.0f;
#pragma unroll
    for (int t = 0; t < S::kTaps; ++t) {
      if ((k * S::kDown + t) % S::kUp != 0) continue;
      if (S::kExact || t < taps) {
#pragma unroll
        for (int e = 0; e < kLoad; ++e) {
          sum[e] += f[t] * window[(k * S::kDown + t) / S::kUp][e];
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

// Call f with the phase as a compile-time number.
template <int kPhase>
struct PhaseConstant {
  static constexpr int value = kPhase;
};
template <int kUp, class F>
DEVICE void with_phase(int phase, const F& f) {
  if constexpr (kUp == 1) {
    f(PhaseConstant<0>{});
  } else if constexpr (kUp == 2) {
    if (phase == 0) {
      f(PhaseConstant<0>{});
    } else {
      f(PhaseConstant<1>{});
    }
  } else {
    static_assert(kUp == 4, "factors of the table");
    if (phase == 0) {
      f(PhaseConstant<0>{});
    } else if (phase == 1) {
      f(PhaseConstant<1>{});
    } else if (phase == 2) {
      f(PhaseConstant<2>{});
    } else {
      f(PhaseConstant<3>{});
    }
  }
}

// Neighbouring outputs of one contiguous row: 16 bytes at a time, or one by one where
// the run crosses an edge or (planar) the row is not aligned.
template <class T, int kRun, class Epilogue>
DEVICE void store_run(T* row, int x, int out_w, float (&sum)[kRun], const Epilogue& epilogue,
                      int64_t n, int row_position, float bias) {
  if constexpr (Epilogue::kActive) {
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      const bool inside = static_cast<unsigned>(x + r) < static_cast<unsigned>(out_w);
      const float noise = inside ? epilogue.noise(n, row_position + x + r) : 0.0f;
      sum[r] = epilogue(sum[r], noise, bias);
    }
  }
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  T* const p = row + x;
  if (x >= 0 && x + kRun <= out_w && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
#pragma unroll
    for (int r = 0; r < kRun; r += kVector) {
      float part[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) part[i] = sum[r + i];
      Packed<T, kVector> packed;
      packed.set(part);
      packed.store(p + r);
    }
  } else {
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      const bool inside = static_cast<unsigned>(x + r) < static_cast<unsigned>(out_w);
      if (inside) p[r] = from_accumulate<T>(sum[r]);
    }
  }
}

// Channels of one pixel in shared memory: chunks of up to four floats, the first
// chunks of all threads, then the second ones, so that neighbouring threads touch
// neighbouring chunks. `vectors`: threads along the channels.
template <int kLoad>
struct Channels {
  static constexpr int kChunk = kLoad < 4 ? kLoad : 4;

  DEVICE static void write(float* pixel, int vector, int vectors, const float (&value)[kLoad]) {
#pragma unroll
    for (int i = 0; i < kLoad; i += kChunk) {
      float* const p = pixel + i * vectors + vector * kChunk;
      if constexpr (kChunk == 4) {
        store_shared(p, float4{value[i], value[i + 1], value[i + 2], value[i + 3]});
      } else if constexpr (kChunk == 2) {
        store_shared(p, float2{value[i], value[i + 1]});
      } else {
        *p = value[i];
      }
    }
  }

  DEVICE static void read(const float* pixel, int vector, int vectors, float (&value)[kLoad]) {
#pragma unroll
    for (int i = 0; i < kLoad; i += kChunk) {
      const float* const p = pixel + i * vectors + vector * kChunk;
      if constexpr (kChunk == 4) {
        const float4 q = load_shared_4(p);
        value[i] = q.x, value[i + 1] = q.y, value[i + 2] = q.z, value[i + 3] = q.w;
      } else if constexpr (kChunk == 2) {
        const float2 q = load_shared_2(p);
        value[i] = q.x, value[i + 1] = q.y;
      } else {
        value[i] = *p;
      }
    }
  }
};

// The channels of one output pixel.
template <class T, int kLoad, class Epilogue>
DEVICE void store_pixel(T* p, float (&sum)[kLoad], const Epilogue& epilogue, int64_t n,
                        int position, const float (&bias)[kLoad]) {
  if constexpr (Epilogue::kActive) {
    const float noise = epilogue.noise(n, position);
#pragma unroll
    for (int e = 0; e < kLoad; ++e) sum[e] = epilogue(sum[e], noise, bias[e]);
  }
  if constexpr (kLoad == 1) {
    *p = from_accumulate<T>(sum[0]);
  } else {
    Packed<T, kLoad> packed;
    packed.set(sum);
    packed.store(p);
  }
}

// --------------------------------------------------------- separable, contiguous

// One run of outputs from its window in shared memory.
template <class S, int kPhase>
DEVICE void filter_run(const float* window, const float (&f)[S::kTaps], int taps,
                       float (&sum)[S::kRun]) {
#pragma unroll
  for (int r = 0; r < S::kRun; ++r) sum[r] = 0.0f;
#pragma unroll
  for (int j = 0; j < window_of(S::kRun, kPhase, S::kUp, S::kDown, S::kTaps); ++j) {
    // The last output of the run is the one that meets sample j with its earliest tap.
    const int first_tap = j * S::kUp - kPhase - (S::kRun - 1) * S::kDown;
    if (S::kExact || first_tap < taps) {
      const float sample = window[padded_index(j, S::kPeriod)];
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        const int t = j * S::kUp - kPhase - r * S::kDown;
        if (t < 0 || t >= S::kTaps) continue;
        if (S::kExact || t < taps) sum[r] += f[t] * sample;
      }
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void separable_contiguous(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUp);
  const Place place(a);
  float* const taps_x = shared;
  float* const taps_y = shared + S::kTaps;
  float* const sums = shared + 2 * S::kTaps + place.slot * 2 * a.slot_floats;
  load_taps<S::kTaps>(taps_x, a.taps_x, a.kw, a.flip);
  load_taps<S::kTaps>(taps_y, a.taps_y, a.kh, a.flip);

  // Planes
  int channel;
  const int64_t n = divide(place.plane, a.c, &channel);
  const int64_t out_offset = place.plane * a.out_h * a.out_w;
  T* const out = static_cast<T*>(a.output) + out_offset;
  const int misalignment =
      static_cast<int>(reinterpret_cast<uintptr_t>(out) / sizeof(T)) & (S::kVector - 1);
  const float bias = place.active ? epilogue.bias(channel) : 0.0f;

  // Runs begin at aligned outputs: up to `slack` outputs before the tile's first one,
  // differently in each row. start: upsampled position that the row's first output reads.
  auto early = [&](int y) {
    return a.slack == 0 ? 0 : (misalignment + y * a.out_w) & (S::kVector - 1);
  };
  auto start = [&](int y) { return (place.x0 - early(y)) * S::kDown - a.pad_x; };
  // Where this thread's sums of a row go; the same in all rows unless rows shift.
  int to[S::kLoad];
  auto find_place = [&](int column, int y) {
    const int index = column - (start(y) >> kLogUp) + a.margin;
#pragma unroll
    for (int e = 0; e < S::kLoad; ++e) to[e] = padded_index(index + e, S::kPeriod);
  };

  // First rows, on their way before anything waits
  Walker<T, S> walker;
  const int lowest = ((place.x0 - a.slack) * S::kDown - a.pad_x) >> kLogUp;
  const int column = (lowest & ~(S::kLoad - 1)) + place.lane * S::kLoad;
  walker.begin(static_cast<const T*>(a.input) + n * a.in_stride_n + channel * a.in_stride_c +
                   column,
               a.in_stride_h, a.in_h, place.active && column >= 0 && column < a.in_w,
               (place.y0 * S::kDown - a.pad_y) >> kLogUp);
  walker.load_first();
  BARRIER(1);

  find_place(column, 0);
  const Runs runs(place.lane, a.slot_threads, a.groups, a.split);
  const int y_end = min(place.y0 + a.tile_h, a.out_h);
  float* buffer = sums;
  float* other = sums + a.slot_floats;
  for (int y = place.y0; y < y_end; y += S::kRows) {
    // Vertically
    walker.take_coming();
    if (place.active) {
      float f[S::kTaps];
      taps_to_registers(taps_y, f);
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
        float sum[S::kLoad];
        walker.filter(k, f, a.kh, sum);
        if (a.slack != 0) find_place(column, y + k);
        float* const row = buffer + k * a.pitch;
#pragma unroll
        for (int e = 0; e < S::kLoad; ++e) row[to[e]] = sum[e];
      }
    }
    walker.advance();
    BARRIER(2);
    if (y + S::kRows < y_end) walker.load_coming();

    // Horizontally
    if (place.active) {
      float f[S::kTaps];
      taps_to_registers(taps_x, f);
      for (int g = runs.first; g < a.groups; g += runs.stride) {
        const int offset = g * S::kRun;
        if (offset >= a.tile_w) continue;
        const float* const column_window =
            buffer + padded_index(a.margin + offset * S::kDown / S::kUp, S::kPeriod);
        for (int k = runs.row; k < S::kRows; k += a.split) {
          const int out_y = y + k;
          const int x = place.x0 - early(out_y) + offset;
          if (static_cast<unsigned>(out_y) >= static_cast<unsigned>(a.out_h)) continue;
          if (x >= a.out_w || x + S::kRun <= 0) continue;
          const float* const window = column_window + k * a.pitch;
          float sum[S::kRun];
          with_phase<S::kUp>(start(out_y) & (S::kUp - 1), [&](auto phase) {
            filter_run<S, decltype(phase)::value>(window, f, a.kw, sum);
          });
          store_run<T, S::kRun>(out + out_y * a.out_w, x, a.out_w, sum, epilogue, n,
                                out_y * a.out_w, bias);
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
                          const float (&f)[S::kTaps], int taps,
                          float (&sum)[S::kRun][S::kLoad]) {
#pragma unroll
  for (int r = 0; r < S::kRun; ++r) {
#pragma unroll
    for (int e = 0; e < S::kLoad; ++e) sum[r][e] = 0.0f;
  }
#pragma unroll
  for (int j = 0; j < window_of(S::kRun, kPhase, S::kUp, S::kDown, S::kTaps); ++j) {
    const int first_tap = j * S::kUp - kPhase - (S::kRun - 1) * S::kDown;
    const bool read_by_none = j * S::kUp < kPhase;
    if (!read_by_none && (S::kExact || first_tap < taps)) {
      float sample[S::kLoad];
      Channels<S::kLoad>::read(window + j * channels, vector, vectors, sample);
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        const int t = j * S::kUp - kPhase - r * S::kDown;
        if (t < 0 || t >= S::kTaps) continue;
        if (S::kExact || t < taps) {
#pragma unroll
          for (int e = 0; e < S::kLoad; ++e) sum[r][e] += f[t] * sample[e];
        }
      }
    }
  }
}

// A block of channels_last: which sample, and which of its channels.
template <int kLoad>
struct ChannelPlace {
  int64_t n;
  int vectors, vector, column, channel;
  bool active;

  DEVICE ChannelPlace(const TileArgs& a, const Place& place) {
    int part;
    const int parts = (a.c + a.channels - 1) / a.channels;
    n = divide(place.plane, parts, &part);
    vectors = a.channels / kLoad;
    column = place.lane / vectors;
    vector = place.lane - column * vectors;
    channel = part * a.channels + vector * kLoad;
    active = place.active && channel < a.c;
  }
};

template <class T, class S, class Epilogue>
DEVICE void separable_channels_last(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUp);
  const Place place(a);
  const ChannelPlace<S::kLoad> at(a, place);
  float* const taps_x = shared;
  float* const taps_y = shared + S::kTaps;
  float* const sums = shared + 2 * S::kTaps;
  load_taps<S::kTaps>(taps_x, a.taps_x, a.kw, a.flip);
  load_taps<S::kTaps>(taps_y, a.taps_y, a.kh, a.flip);

  // Channels
  T* const out = static_cast<T*>(a.output) + at.n * a.out_h * a.out_w * a.c + at.channel;
  float bias[S::kLoad];
#pragma unroll
  for (int e = 0; e < S::kLoad; ++e) bias[e] = at.active ? epilogue.bias(at.channel + e) : 0.0f;

  // First rows, on their way before anything waits
  Walker<T, S> walker;
  const int start = place.x0 * S::kDown - a.pad_x;
  const int column = (start >> kLogUp) + at.column;
  walker.begin(static_cast<const T*>(a.input) + at.n * a.in_stride_n +
                   static_cast<int64_t>(column) * a.in_stride_w + at.channel,
               a.in_stride_h, a.in_h, at.active && column >= 0 && column < a.in_w,
               (place.y0 * S::kDown - a.pad_y) >> kLogUp);
  walker.load_first();
  BARRIER(3);

  const Runs runs(at.column, a.columns, a.groups, a.split);
  const int y_end = min(place.y0 + a.tile_h, a.out_h);
  float* buffer = sums;
  float* other = sums + a.slot_floats;
  for (int y = place.y0; y < y_end; y += S::kRows) {
    // Vertically
    walker.take_coming();
    if (at.active) {
      float f[S::kTaps];
      taps_to_registers(taps_y, f);
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
        float sum[S::kLoad];
        walker.filter(k, f, a.kh, sum);
        Channels<S::kLoad>::write(buffer + k * a.pitch + at.column * a.channels, at.vector,
                                  at.vectors, sum);
      }
    }
    walker.advance();
    BARRIER(4);
    if (y + S::kRows < y_end) walker.load_coming();

    // Horizontally: a thread keeps its channels
    if (at.active) {
      float f[S::kTaps];
      taps_to_registers(taps_x, f);
      for (int g = runs.first; g < a.groups; g += runs.stride) {
        const int offset = g * S::kRun;
        const int x = place.x0 + offset;
        if (offset >= a.tile_w || x >= a.out_w) continue;
        const float* const column_window = buffer + offset * S::kDown / S::kUp * a.channels;
        for (int k = runs.row; k < S::kRows; k += a.split) {
          const int out_y = y + k;
          if (static_cast<unsigned>(out_y) >= static_cast<unsigned>(a.out_h)) continue;
          const float* const window = column_window + k * a.pitch;
          float sum[S::kRun][S::kLoad];
          with_phase<S::kUp>(start & (S::kUp - 1), [&](auto phase) {
            filter_pixels<S, decltype(phase)::value>(window, at.vector, at.vectors, a.channels, f,
                                                     a.kw, sum);
          });
          const int position = out_y * a.out_w + x;
#pragma unroll
          for (int r = 0; r < S::kRun; ++r) {
            if (x + r < a.out_w) {
              store_pixel<T, S::kLoad>(out + (position + r) * a.c, sum[r], epilogue, at.n,
                                       position + r, bias);
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

// ------------------------------------------------------------------------ planar
//
// A small kernel that is not an outer product. The tile's rows go to shared memory
// as float; then each thread computes `rows` times `run` outputs, so that a sample
// read once serves many of them.

template <class S>
DEVICE void load_planar_taps(float* shared, const TileArgs& a) {
  const float* const kernel = static_cast<const float*>(a.kernel);
  for (int t = threadIdx.x; t < S::kTaps * S::kTaps; t += blockDim.x) {
    const int i = t / S::kTaps, j = t % S::kTaps;
    const int tap_y = a.flip ? i : a.kh - 1 - i;
    const int tap_x = a.flip ? j : a.kw - 1 - j;
    shared[t] = i < a.kh && j < a.kw ? kernel[tap_y * a.kw + tap_x] : 0.0f;
  }
}

template <class T, class S>
DEVICE void load_tile_rows(Walker<T, S>& walker, int count, float* to, int pitch,
                           int index, int column, int vector, int vectors) {
  // Rows in flight: of one element each it takes more to keep memory busy. A tile has 19 rows,
  // or 18, or 10 (34 where it halves the image).
  constexpr int kAhead = S::kLoad == 1 ? 10 : 4;
  for (int i = 0; i < count; i += kAhead) {
    Packed<T, S::kLoad> packed[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) packed[j] = walker.load_row();
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
  const Place place(a);
  float* const taps = shared;
  float* const tile = shared + S::kTaps * S::kTaps + place.slot * a.slot_floats;
  load_planar_taps<S>(taps, a);

  // Load
  int channel;
  const int64_t n = divide(place.plane, a.c, &channel);
  const int start = place.x0 * S::kDown - a.pad_x;
  const int lowest = start >> kLogUp;
  const int column = (lowest & ~(S::kLoad - 1)) + place.lane * S::kLoad;
  Walker<T, S> walker;
  walker.begin(static_cast<const T*>(a.input) + n * a.in_stride_n + channel * a.in_stride_c +
                   column,
               a.in_stride_h, a.in_h, column >= 0 && column < a.in_w,
               (place.y0 * S::kDown - a.pad_y) >> kLogUp);
  if (place.active) {
    load_tile_rows(walker, window_of(a.tile_h, 0, S::kUp, S::kDown, S::kTaps), tile, a.pitch,
                   column - lowest + a.margin, 0, 0, 0);
  }
  BARRIER(5);

  // Filter
  if (!place.active) return;
  float f[S::kTaps * S::kTaps];
  taps_to_registers(taps, f);
  T* const out = static_cast<T*>(a.output) + place.plane * a.out_h * a.out_w;
  const float bias = epilogue.bias(channel);
  for (int i = place.lane; i < a.tile_h / S::kRows * a.groups; i += a.slot_threads) {
    const int k = static_cast<int>(__umulhi(static_cast<uint32_t>(i), a.groups_reciprocal));
    const int offset = (i - k * a.groups) * S::kRun;
    const int y = place.y0 + k * S::kRows;
    const int x = place.x0 + offset;
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
      store_run<T, S::kRun>(out + (y + row) * a.out_w, x, a.out_w, values, epilogue, n,
                            (y + row) * a.out_w, bias);
    }
  }
}

template <class T, class S, class Epilogue>
DEVICE void planar_channels_last(const TileArgs& a, const Epilogue& epilogue) {
  SHARED_MEMORY(float, shared);
  constexpr int kLogUp = log2_of(S::kUp);
  const Place place(a);
  const ChannelPlace<S::kLoad> at(a, place);
  float* const taps = shared;
  float* const tile = shared + S::kTaps * S::kTaps;
  load_planar_taps<S>(taps, a);

  // Load
  const int start = place.x0 * S::kDown - a.pad_x;
  const int column = (start >> kLogUp) + at.column;
  Walker<T, S> walker;
  walker.begin(static_cast<const T*>(a.input) + at.n * a.in_stride_n +
                   static_cast<int64_t>(column) * a.in_stride_w + at.channel,
               a.in_stride_h, a.in_h, column >= 0 && column < a.in_w,
               (place.y0 * S::kDown - a.pad_y) >> kLogUp);
  if (at.active) {
    load_tile_rows(walker, window_of(a.tile_h, 0, S::kUp, S::kDown, S::kTaps), tile, a.pitch, 0,
                   at.column, at.vector, at.vectors);
  }
  BARRIER(6);

  // Filter
  if (!at.active) return;
  float f[S::kTaps * S::kTaps];
  taps_to_registers(taps, f);
  T* const out = static_cast<T*>(a.output) + at.n * a.out_h * a.out_w * a.c + at.channel;
  float bias[S::kLoad];
#pragma unroll
  for (int e = 0; e < S::kLoad; ++e) bias[e] = epilogue.bias(at.channel + e);
  for (int i = at.column; i < a.tile_h / S::kRows * a.groups; i += a.columns) {
    const int k = static_cast<int>(__umulhi(static_cast<uint32_t>(i), a.groups_reciprocal));
    const int offset = (i - k * a.groups) * S::kRun;
    const int y = place.y0 + k * S::kRows;
    const int x = place.x0 + offset;
    if (offset >= a.tile_w || x >= a.out_w || y >= a.out_h) continue;
    const float* const window =
        tile + k * S::kNew * a.pitch + offset * S::kDown / S::kUp * a.channels;
    float sum[S::kRows][S::kRun][S::kLoad];
    auto read = [&](int row, int j, float(&sample)[S::kLoad]) {
      Channels<S::kLoad>::read(window + row * a.pitch + j * a.channels, at.vector, at.vectors,
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
        store_pixel<T, S::kLoad>(out + position * a.c, sum[row][r], epilogue, at.n, position,
                                 bias);
      }
    }
  }
}

// -------------------------------------------------------------------- the kernel

// The epilogue needs registers too: with it, one block less shall fit.
constexpr int blocks_with(int blocks, bool epilogue) {
  return epilogue && blocks > 1 ? blocks - 1 : blocks;
}

template <class T, int Row, class Epilogue>
__global__ void __launch_bounds__(Shape<T, Row>::kThreads,
                                  blocks_with(Shape<T, Row>::kBlocks, Epilogue::kActive))
    tile_kernel(const TileArgs args, const Epilogue epilogue) {
  using S = Shape<T, Row>;
  if constexpr (S::v.method == Method::separable) {
    if constexpr (S::v.layout == Layout::contiguous) {
      separable_contiguous<T, S>(args, epilogue);
    } else {
      separable_channels_last<T, S>(args, epilogue);
    }
  } else {
    if constexpr (S::v.layout == Layout::contiguous) {
      planar_contiguous<T, S>(args, epilogue);
    } else {
      planar_channels_last<T, S>(args, epilogue);
    }
  }
}

}  // namespace resample_layers
