// SPDX-License-Identifier: BSD-3-Clause
//
// What all tile kernels share: which part of the output a thread works on, loading and
// storing. Factors, taps and tile are compile-time numbers of one row of the table
// (table.cuh), so that every loop over taps is unrolled and a tap that would meet an
// inserted zero is never written down.
#pragma once

#include "device.cuh"
#include "epilogue.cuh"
#include "output_sum.cuh"
#include "table.cuh"

namespace resample_layers {

// Which part of the output a thread works on: which tile, which plane, which lane of its slot.
struct TileThread {
  int lane, slot, x0, y0;  // x0, y0: first output of the tile
  int64_t plane;
  bool active;

  DEVICE explicit TileThread(const TileArgs& a) {
    const uint32_t thread = threadIdx.x;
    const uint32_t block = blockIdx.x;
    const uint32_t rest = block / static_cast<uint32_t>(a.tiles_x);
    const uint32_t group = rest / static_cast<uint32_t>(a.tiles_y);
    slot = static_cast<int>(thread / static_cast<uint32_t>(a.slot_threads));
    lane = static_cast<int>(thread) - slot * a.slot_threads;
    x0 = static_cast<int>(block - rest * a.tiles_x) * a.tile_w - a.shift_x;
    y0 = static_cast<int>(rest - group * a.tiles_y) * a.tile_h - a.shift_y;
    plane = static_cast<int64_t>(group) * a.slots + slot;
    active = slot < a.slots && plane < a.planes;
  }
};

// Which sample a thread works on, and which of its channels (channels_last).
template <int kLoad>
struct ChannelThread {
  int64_t n;
  int vectors, vector, column, channel;
  bool active;

  DEVICE ChannelThread(const TileArgs& a, const TileThread& at) {
    int part;
    const int parts = (a.c + a.channels - 1) / a.channels;
    n = divide(at.plane, parts, &part);
    vectors = a.channels / kLoad;
    column = at.lane / vectors;
    vector = at.lane - column * vectors;
    channel = part * a.channels + vector * kLoad;
    active = at.active && channel < a.c;
  }
};

// Reads one thread's columns (contiguous) or channels of a column (channels_last), row by row
// down the image.
template <class T, int kLoad>
struct RowReader {
  const char* next;   // the row that is loaded next; beyond the image it is not read
  int64_t row_bytes;
  int row, in_h;
  bool inside;        // the columns lie in the image: all of them or, outside, none

  DEVICE RowReader(const T* column, int stride_h, int rows, bool columns_inside, int first_row)
      : next(reinterpret_cast<const char*>(column)),
        row_bytes(static_cast<int64_t>(stride_h) * static_cast<int64_t>(sizeof(T))),
        row(first_row),
        in_h(rows),
        inside(columns_inside) {
    next += first_row * row_bytes;
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
};

// Taps in the order in which a window meets its samples. Zero beyond the last one, where they are
// never used.
DEVICE float window_tap(const void* taps, int count, bool flip, int t) {
  if (t >= count) return 0.0f;
  return taps ? static_cast<const float*>(taps)[flip ? t : count - 1 - t] : 1.0f;
}

template <int kTaps>
DEVICE void taps_to_registers(const float* shared, float (&f)[kTaps]) {
  if constexpr (kTaps == 1) {
    f[0] = shared[0];
  } else {
    static_assert(kTaps % 4 == 0, "four at a time");
#pragma unroll
    for (int t = 0; t < kTaps; t += 4) {
      const float4 four = load_shared_4(shared + t);
      f[t] = four.x, f[t + 1] = four.y, f[t + 2] = four.z, f[t + 3] = four.w;
    }
  }
}

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

// The noise of neighbouring outputs of one row, still without its strength. It is asked for one
// run of outputs ahead, so that nothing waits for it.
template <int kRun, class Epilogue>
struct NoiseRun {
  float value[Epilogue::kActive ? kRun : 1] = {};

  DEVICE float of(int r) const { return Epilogue::kActive ? value[r] : 0.0f; }

  // image: the noise of the sample, or null; position: of the first output, y * out_w + x.
  DEVICE void load(const float* image, int position, int x, int out_w) {
    if constexpr (Epilogue::kActive) {
      if (image == nullptr) return;
      const float* const p = image + position;
      if (x >= 0 && x + kRun <= out_w && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
        static_assert(kRun % 4 == 0, "whole vectors");
#pragma unroll
        for (int r = 0; r < kRun; r += 4) {
          Packed<float, 4> packed;
          packed.load(p + r);
#pragma unroll
          for (int i = 0; i < 4; ++i) value[r + i] = packed.get(i);
        }
      } else {
#pragma unroll
        for (int r = 0; r < kRun; ++r) {
          if (static_cast<unsigned>(x + r) < static_cast<unsigned>(out_w)) value[r] = p[r];
        }
      }
    }
  }
};

// Neighbouring outputs of one contiguous row: 16 bytes at a time, or one by one where
// the run crosses an edge or (planar) the row is not aligned.
template <class T, int kRun, class Epilogue>
DEVICE void store_run(T* row, int x, int out_w, float (&sum)[kRun], const Epilogue& epilogue,
                      const NoiseRun<kRun, Epilogue>& noise, float strength, float scale,
                      float bias) {
  if constexpr (Epilogue::kActive) {
#pragma unroll
    for (int r = 0; r < kRun; ++r) sum[r] = epilogue(sum[r], scale, strength * noise.of(r), bias);
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

// The channels of one output pixel. noise: times its strength.
template <class T, int kLoad, class Epilogue>
DEVICE void store_pixel(T* p, float (&sum)[kLoad], const Epilogue& epilogue, float noise,
                        const float (&scale)[kLoad], const float (&bias)[kLoad]) {
  if constexpr (Epilogue::kActive) {
#pragma unroll
    for (int e = 0; e < kLoad; ++e) sum[e] = epilogue(sum[e], scale[e], noise, bias[e]);
  }
  if constexpr (kLoad == 1) {
    *p = from_accumulate<T>(sum[0]);
  } else {
    Packed<T, kLoad> packed;
    packed.set(sum);
    packed.store(p);
  }
}

// ------------------------------------------------------------- taps that are not finite
//
// The loops over taps multiply the zeros that stand for padding, which leaves a sum as it is
// where the taps are finite. Where one is not, which the block learns at the barrier behind
// its taps, the outputs of the tile are computed one by one over the samples that exist.

// A kernel of one row or column, which is taps of one axis alone, is both.
template <class S>
DEVICE Filter<int> exact_filter(const TileArgs& a) {
  const void* const kernel = a.taps_x == nullptr   ? (a.taps_y ? a.taps_y : a.kernel)
                             : a.taps_y == nullptr ? a.taps_x
                                                   : nullptr;
  return Filter<int>{kernel,    a.taps_x, a.taps_y, a.kh,   a.kw,   S::kUpX, S::kUpY, S::kDownX,
                     S::kDownY, a.pad_x,  a.pad_y,  a.in_h, a.in_w, a.in_stride_h,
                     a.in_stride_w, a.flip};
}

// The outputs of a tile that every `threads`-th of its positions holds, from `first` on, of
// `channels` neighbouring channels. It knows nothing of the row of the table, so that all kernels
// of a type share it.
template <class T, class Epilogue>
DEVICE void exact_tile(const Filter<int>& filter, const TileArgs& a, const TileThread& at,
                       Layout layout, const Epilogue& epilogue, int64_t n, int first_channel,
                       int channels, int first, int threads) {
  const int64_t pixels = static_cast<int64_t>(a.out_h) * a.out_w;
#pragma unroll 1
  for (int i = first; i < a.tile_w * a.tile_h; i += threads) {
    const int y = at.y0 + i / a.tile_w, x = at.x0 + i % a.tile_w;
    if (y < 0 || y >= a.out_h || x < 0 || x >= a.out_w) continue;
    const int position = y * a.out_w + x;
#pragma unroll 1
    for (int c = first_channel; c < first_channel + channels; ++c) {
      const T* const plane =
          static_cast<const T*>(a.input) + n * a.in_stride_n + c * a.in_stride_c;
      float sum = output_sum<T, int>(filter, plane, y, x);
      if constexpr (Epilogue::kActive) {
        sum = epilogue(sum, epilogue.scale(n, c), epilogue.noise(n, position), epilogue.bias(c));
      }
      const int64_t to =
          n * a.c * pixels + (layout == Layout::channels_last
                                  ? static_cast<int64_t>(position) * a.c + c
                                  : c * pixels + position);
      static_cast<T*>(a.output)[to] = from_accumulate<T>(sum);
    }
  }
}

}  // namespace resample_layers
