// SPDX-License-Identifier: BSD-3-Clause
//
// Tile kernels of separable taps that need neither shared memory nor a barrier, for arrays whose
// channels are innermost.
//
// A thread owns 16 bytes of channels of a run of output columns. It reads its neighbours' columns
// itself: they come from the first-level cache, where the neighbours' own reads have put them. It
// filters each row horizontally as soon as it arrives, keeps the sums of the rows that the next
// outputs need in registers, and walks down the image. The rows after it are on their way
// meanwhile.
#pragma once

#include "tile_parts.cuh"

namespace resample_layers {

// One axis' taps to registers. Returns whether all of them are finite.
template <int kTaps>
DEVICE bool taps_of_axis(float (&f)[kTaps], const void* taps, int count, bool flip) {
  bool finite = true;
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    f[t] = window_tap(taps, count, flip, t);
    finite = finite && is_finite(f[t]);
  }
  return finite;
}

// The neighbouring columns that one thread reads, row by row. Rows and columns outside the image
// are zero. The first columns are the thread's own: it asks memory for them some rows ahead. The
// others are the own columns of its neighbours, which have asked for them: it reads them when it
// needs them.
template <class T, class S>
struct ColumnReader {
  static constexpr int kOwn = S::kOwn, kOthers = S::kColumns - S::kOwn;

  Packed<T, S::kLoad> coming[S::kAhead][kOwn];
  const char* next;  // the row that is asked for next
  int64_t row_bytes, column_bytes;
  int row, end;      // the number of that row, and where the rows end that the tile needs
  bool inside[S::kColumns];

  DEVICE ColumnReader(const T* image, const TileArgs& a, int column, int first_row, int last_row)
      : next(reinterpret_cast<const char*>(image)),
        row_bytes(static_cast<int64_t>(a.in_stride_h) * static_cast<int64_t>(sizeof(T))),
        column_bytes(static_cast<int64_t>(a.in_stride_w) * static_cast<int64_t>(sizeof(T))),
        row(first_row),
        end(max(0, min(last_row + 1, a.in_h))) {
    next += first_row * row_bytes + column * column_bytes;
#pragma unroll
    for (int m = 0; m < S::kColumns; ++m) {
      inside[m] = static_cast<unsigned>(column + m) < static_cast<unsigned>(a.in_w);
    }
#pragma unroll
    for (int i = 0; i < S::kAhead; ++i) ask(i);
  }

  // One column of a row. number: of the row.
  DEVICE Packed<T, S::kLoad> load(int m, const char* from, int number) const {
    Packed<T, S::kLoad> packed;
    packed.clear();
    if (inside[m] && static_cast<unsigned>(number) < static_cast<unsigned>(end)) {
      packed.load(reinterpret_cast<const T*>(from + m * column_bytes));
    }
    return packed;
  }

  DEVICE void ask(int i) {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) coming[i][m] = load(m, next, row);
    next += row_bytes;
    ++row;
  }

  // Filter the row that is i-th of those on their way horizontally, and ask for the one that is to
  // take its place.
  DEVICE void take(int i, const float (&f)[S::kTapsX], float (&sum)[S::kRun][S::kLoad]) {
    Packed<T, S::kLoad> others[kOthers > 0 ? kOthers : 1];
#pragma unroll
    for (int m = 0; m < kOthers; ++m) {
      others[m] = load(kOwn + m, next - S::kAhead * row_bytes, row - S::kAhead);
    }
#pragma unroll
    for (int r = 0; r < S::kRun; ++r) {
#pragma unroll
      for (int e = 0; e < S::kLoad; ++e) sum[r][e] = 0.0f;
    }
#pragma unroll
    for (int m = 0; m < S::kColumns; ++m) {
#pragma unroll
      for (int e = 0; e < S::kLoad; ++e) {
        const float sample = m < kOwn ? coming[i][m].get(e) : others[m - kOwn].get(e);
#pragma unroll
        for (int r = 0; r < S::kRun; ++r) {
          const int t = S::x().tap(m, r);
          if (t >= 0 && t < S::kTapsX) sum[r][e] += f[t] * sample;
        }
      }
    }
    ask(i);
  }
};

template <class T, class S, class Epilogue>
DEVICE void separable_columns(const TileArgs& a, const Epilogue& epilogue) {
  const TileThread at(a);
  const ChannelThread<S::kLoad> mine(a, at);
  const int x = at.x0 + mine.column * S::kRun;
  if (!mine.active) return;

  // The first rows, on their way before anything waits
  const int y_end = min(at.y0 + a.tile_h, a.out_h);
  const int first_row = (at.y0 * S::kDownY - a.pad_y + S::kUpY - 1) >> log2_of(S::kUpY);
  const int last_row = ((y_end - 1) * S::kDownY - a.pad_y + a.kh - 1) >> log2_of(S::kUpY);
  const int column = (x * S::kDownX - a.pad_x + S::kUpX - 1) >> log2_of(S::kUpX);
  const T* const image =
      static_cast<const T*>(a.input) + mine.n * a.in_stride_n + mine.channel;
  ColumnReader<T, S> rows(image, a, column, first_row, last_row);

  // Across, taps behind the filter's last are not left out: they would meet NaN and infinity
  static_assert(S::kExact || S::kTapsX == 1, "a row of any number of taps filters down alone");
  // Taps and channels
  float fx[S::kTapsX], fy[S::kTapsY];
  const bool finite_x = taps_of_axis(fx, a.taps_x, a.kw, a.flip);
  const bool finite_y = taps_of_axis(fy, a.taps_y, a.kh, a.flip);
  if (!finite_x || !finite_y) {
    exact_tile<T>(exact_filter<S>(a), a, at, Layout::channels_last, epilogue, mine.n, mine.channel,
                  S::kLoad, mine.column, a.columns);
    return;
  }
  if (x >= a.out_w) return;
  float scale[S::kLoad], bias[S::kLoad];
#pragma unroll
  for (int e = 0; e < S::kLoad; ++e) {
    scale[e] = epilogue.scale(mine.n, mine.channel + e);
    bias[e] = epilogue.bias(mine.channel + e);
  }
  const float strength = epilogue.strength();
  const float* const noise = epilogue.noise_image(mine.n);
  // A run of one output lies in the image.
  auto in_row = [&](int r) {
    return S::kRun == 1 || static_cast<unsigned>(x + r) < static_cast<unsigned>(a.out_w);
  };
  // Of the row of outputs that is stored next
  float coming[Epilogue::kActive ? S::kRun : 1] = {};
  auto load_noise = [&](int y) {
    if constexpr (Epilogue::kActive) {
      if (noise == nullptr || static_cast<unsigned>(y) >= static_cast<unsigned>(y_end)) return;
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
        if (in_row(r)) coming[r] = noise[y * a.out_w + x + r];
      }
    }
  };
  load_noise(at.y0);

  float window[S::kCarry + S::kNew][S::kRun][S::kLoad];
#pragma unroll
  for (int i = 0; i < S::kCarry; ++i) rows.take(i % S::kAhead, fx, window[i]);

  // The first output of the row that is stored next; before the image it is not written.
  const int64_t pixel_bytes = static_cast<int64_t>(a.c) * static_cast<int64_t>(sizeof(T));
  const int64_t image_bytes = a.out_h * (a.out_w * pixel_bytes);
  char* to = static_cast<char*>(a.output) + mine.n * image_bytes +
             mine.channel * static_cast<int64_t>(sizeof(T)) +
             (static_cast<int64_t>(at.y0) * a.out_w + x) * pixel_bytes;
  for (int y = at.y0; y < y_end; y += S::kRows) {
#pragma unroll
    for (int i = S::kCarry; i < S::kCarry + S::kNew; ++i) {
      rows.take(i % S::kAhead, fx, window[i]);

      // The outputs that waited for this row
#pragma unroll
      for (int j = 0; j < S::kUpY; ++j) {
        if (!S::y().ready(i, j)) continue;
        const int k = S::y().output(i, j);
        const int out_y = y + k;
        const bool in_column = static_cast<unsigned>(out_y) < static_cast<unsigned>(y_end);
        float added[Epilogue::kActive ? S::kRun : 1];
        if constexpr (Epilogue::kActive) {
#pragma unroll
          for (int r = 0; r < S::kRun; ++r) added[r] = strength * coming[r];
          load_noise(out_y + 1);
        }
#pragma unroll
        for (int r = 0; r < S::kRun; ++r) {
          float sum[S::kLoad];
#pragma unroll
          for (int e = 0; e < S::kLoad; ++e) sum[e] = 0.0f;
#pragma unroll
          for (int t = S::y().tap(i, k) % S::kUpY; t < S::kTapsY; t += S::kUpY) {
            if (S::kExact || t < a.kh) {
              const int m = S::y().sample(t, k);
#pragma unroll
              for (int e = 0; e < S::kLoad; ++e) sum[e] += fy[t] * window[m][r][e];
            }
          }
          if (!in_column || !in_row(r)) continue;
          store_pixel<T, S::kLoad>(reinterpret_cast<T*>(to + r * pixel_bytes), sum, epilogue,
                                   Epilogue::kActive ? added[r] : 0.0f, scale, bias);
        }
        to += a.out_w * pixel_bytes;
      }
    }
#pragma unroll
    for (int i = 0; i < S::kCarry; ++i) {
#pragma unroll
      for (int r = 0; r < S::kRun; ++r) {
#pragma unroll
        for (int e = 0; e < S::kLoad; ++e) window[i][r][e] = window[i + S::kNew][r][e];
      }
    }
  }
}

}  // namespace resample_layers
