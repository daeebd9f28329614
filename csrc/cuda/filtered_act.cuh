// SPDX-License-Identifier: BSD-3-Clause
//
// Filtered activations of any factors, taps, pads, strides and types: filtered_act.h has the
// mathematics. A block computes one tile of one plane, or of `channels` neighbouring channels,
// which are innermost in its shared memory too. The signal between the filters lies in shared
// memory, never in global memory. Where even the smallest tile does not fit, the `direct`
// kernels below compute each result by loops over everything that it is made of.
#pragma once

#include "../filtered_act.h"
#include "filtered_activation.cuh"
#include "filtered_terms.cuh"

namespace resample_layers {

constexpr int kFilteredThreads = 256;
constexpr int kDirectElements = 1024;  // elements of a plane that one block of `direct` serves

struct FilteredStrides {
  int64_t n, c, h, w;
};

// Elements of shared memory before each array of a tile.
struct FilteredOffsets {
  int input, grad;        // the tile of the input and of the gradient of the output
  int columns;            // the input, filtered along y; not used where the first kernel is 2-D
  int grad_columns;       // the same of the gradient of the output, by the second kernel
  int mid;                // the signal between the filters, or its gradient
  int rows;               // that signal, filtered along x; not used where that kernel is 2-D
  int sums;               // one of each thread
};

template <class A>
struct FilteredArgs {
  const void* input;
  const void* grad;
  void* output;           // or the gradient of the input
  const A *bias, *alpha, *beta;
  const A *up_kernel, *up_taps_x, *up_taps_y;
  const A *down_kernel, *down_taps_x, *down_taps_y;
  FilteredAxis x, y;
  FilteredStrides in, out, grad_strides;
  int64_t n, c;
  Nonlinearity activation;
  A slope, gain, clamp;   // clamp: infinity for none

  // A tile: elements of the output, or of the input where gradients are computed
  int tile_w, tile_h, channels;
  int64_t tiles_x, tiles_y, groups, tiles;
  FilteredOffsets at;

  // Sums of each block, in the order [n, c, block of the plane]; null where not wanted
  A *bias_sums, *alpha_sums, *beta_sums;
  int64_t blocks;         // of `direct`, of a plane
};

// f(row, column, channel) for all elements of an array in shared memory, by all threads.
template <class F>
DEVICE void for_each_element(int64_t rows, int64_t columns, int channels, const F& f) {
  const unsigned width = static_cast<unsigned>(columns), depth = static_cast<unsigned>(channels);
  const unsigned count = static_cast<unsigned>(rows) * width * depth;
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const unsigned pixel = i / depth, row = pixel / width;
    f(static_cast<int>(row), static_cast<int>(pixel - row * width),
      static_cast<int>(i - pixel * depth));
  }
}

// Which tile, of which channels of which sample.
template <class A>
struct FilteredTile {
  int64_t n, channel, plane;
  Span x, y;            // of the output, or of the input where gradients are computed
  int64_t tile, tiles;  // of the plane
  int channels;         // that exist

  DEVICE FilteredTile(const FilteredArgs<A>& a, int64_t index, int64_t width, int64_t height) {
    tiles = a.tiles_x * a.tiles_y;
    const int64_t group = index / tiles;
    tile = index - group * tiles;
    const int64_t tile_y = tile / a.tiles_x, tile_x = tile - tile_y * a.tiles_x;
    n = group / a.groups;
    channel = (group - n * a.groups) * a.channels;
    plane = n * a.c + channel;
    channels = static_cast<int>(clamp_to(a.c - channel, 0, a.channels));
    x = Span{tile_x * a.tile_w, clamp_to(width - tile_x * a.tile_w, 0, a.tile_w)};
    y = Span{tile_y * a.tile_h, clamp_to(height - tile_y * a.tile_h, 0, a.tile_h)};
  }

};

// A part of an image to shared memory; bias: null for none.
template <class T>
DEVICE void load_image(const void* image, const FilteredStrides& s, int64_t n, int64_t channel,
                       const Span& y, const Span& x, int channels, int existing,
                       const Accumulate<T>* bias, Accumulate<T>* to) {
  const T* const from = static_cast<const T*>(image) + n * s.n + channel * s.c;
  for_each_element(y.count, x.count, channels, [&](int row, int column, int k) {
    Accumulate<T> value = 0;
    if (k < existing) {
      value = to_accumulate(from[(y.first + row) * s.h + (x.first + column) * s.w + k * s.c]);
      if (bias) value += bias[channel + k];
    }
    to[(row * static_cast<int>(x.count) + column) * channels + k] = value;
  });
}

// Sums over terms along y and x of what lies in shared memory, [rows, width, channels].
template <class A, class Y, class X>
DEVICE A sum_2d(const A* kernel, int64_t taps_x, const A* from, int width, int channels, int k,
                const Y& terms_y, int row, const X& terms_x, int column) {
  A sum = 0;
  terms_y.visit(row, [&](int tap_y, int from_row) {
    terms_x.visit(column, [&](int tap_x, int from_column) {
      sum += kernel[tap_y * taps_x + tap_x] * from[(from_row * width + from_column) * channels + k];
    });
  });
  return sum;
}

template <class A, class Y>
DEVICE A sum_down_columns(const A* taps, const A* from, int width, int channels, int k,
                          const Y& terms, int row, int column) {
  A sum = 0;
  terms.visit(row, [&](int tap, int from_row) {
    sum += taps[tap] * from[(from_row * width + column) * channels + k];
  });
  return sum;
}

template <class A, class X>
DEVICE A sum_along_row(const A* taps, const A* from, int width, int channels, int k,
                       const X& terms, int row, int column) {
  A sum = 0;
  terms.visit(column, [&](int tap, int from_column) {
    sum += taps[tap] * from[(row * width + from_column) * channels + k];
  });
  return sum;
}

// Adds what the threads of a block hold, the same way every time. A thread holds a sum of channel
// threadIdx.x % channels, and the numbers of threads and channels are powers of two. Every thread
// calls it; `existing` sums are written, `stride` apart.
template <class A, class To>
DEVICE void add_block_sums(A sum, A* shared, int channels, int existing, To* to, int64_t stride) {
  const int thread = static_cast<int>(threadIdx.x);
  BARRIER(41);  // until nobody reads what was in this memory
  shared[thread] = sum;
  for (int half = static_cast<int>(blockDim.x) / 2; half >= channels; half /= 2) {
    BARRIER(40);
    if (thread < half) shared[thread] += shared[thread + half];
  }
  if (thread < existing) to[thread * stride] = static_cast<To>(shared[thread]);
}

template <class A>
DEVICE Activation<A> activation_of(const FilteredArgs<A>& a, int64_t channel) {
  return Activation<A>{a.activation, a.slope, a.gain, a.clamp,
                       a.alpha ? a.alpha[channel] : A(0), a.beta ? a.beta[channel] : A(0)};
}

template <class T>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_kernel(const FilteredArgs<Accumulate<T>> a) {
  using A = Accumulate<T>;
  SHARED_MEMORY(A, shared);
  const int depth = a.channels;
#pragma unroll 1
  for (int64_t index = blockIdx.x; index < a.tiles; index += gridDim.x) {
    const FilteredTile<A> tile(a, index, a.x.out, a.y.out);
    const Span mid_x = positions_of_outputs(a.x, tile.x.first, tile.x.first + tile.x.count - 1);
    const Span mid_y = positions_of_outputs(a.y, tile.y.first, tile.y.first + tile.y.count - 1);
    const Span in_x = samples_of_positions(a.x, mid_x);
    const Span in_y = samples_of_positions(a.y, mid_y);
    const int in_w = static_cast<int>(in_x.count), mid_w = static_cast<int>(mid_x.count);
    const int out_w = static_cast<int>(tile.x.count);

    A* const input = shared + a.at.input;
    load_image<T>(a.input, a.in, tile.n, tile.channel, in_y, in_x, depth, tile.channels, a.bias,
                  input);
    BARRIER(43);

    // The first filter and the activation
    const PositionTerms<int> up_x(a.x, mid_x, in_x), up_y(a.y, mid_y, in_y);
    A* const columns = shared + a.at.columns;
    if (!a.up_kernel) {
      for_each_element(mid_y.count, in_x.count, depth, [&](int row, int column, int k) {
        columns[(row * in_w + column) * depth + k] =
            sum_down_columns(a.up_taps_y, input, in_w, depth, k, up_y, row, column);
      });
      BARRIER(44);
    }
    A* const mid = shared + a.at.mid;
    for_each_element(mid_y.count, mid_x.count, depth, [&](int row, int column, int k) {
      const A m = a.up_kernel
                      ? sum_2d(a.up_kernel, a.x.up_taps, input, in_w, depth, k, up_y, row, up_x,
                               column)
                      : sum_along_row(a.up_taps_x, columns, in_w, depth, k, up_x, row, column);
      const int64_t channel = tile.channel + (k < tile.channels ? k : 0);
      mid[(row * mid_w + column) * depth + k] = activation_of(a, channel).value(m);
    });
    BARRIER(45);

    // The second filter
    const OutputTerms<int> down_x(a.x, tile.x, mid_x), down_y(a.y, tile.y, mid_y);
    A* const rows = shared + a.at.rows;
    if (!a.down_kernel) {
      for_each_element(mid_y.count, tile.x.count, depth, [&](int row, int column, int k) {
        rows[(row * out_w + column) * depth + k] =
            sum_along_row(a.down_taps_x, mid, mid_w, depth, k, down_x, row, column);
      });
      BARRIER(46);
    }
    T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
    for_each_element(tile.y.count, tile.x.count, depth, [&](int row, int column, int k) {
      if (k >= tile.channels) return;
      const A sum = a.down_kernel
                        ? sum_2d(a.down_kernel, a.x.down_taps, mid, mid_w, depth, k, down_y, row,
                                 down_x, column)
                        : sum_down_columns(a.down_taps_y, rows, out_w, depth, k, down_y, row,
                                           column);
      to[(tile.y.first + row) * a.out.h + (tile.x.first + column) * a.out.w + k * a.out.c] =
          from_accumulate<T>(sum);
    });
    BARRIER(47);  // before the next tile overwrites what this one reads
  }
}

// The first position of a tile that no tile before it has: each position counts once.
DEVICE int64_t own_from(const FilteredAxis& a, int64_t first_sample) {
  if (first_sample == 0) return 0;
  return clamp_to(first_sample * a.up + a.up_pad - (a.up_taps - 1), 0, a.mid);
}

// The positions that count for a tile in the gradients of the activation's parameters. Those that
// no sample's gradient reads may count nowhere: they are 0, where these gradients are 0 too.
DEVICE Span own_positions(const FilteredAxis& a, const Span& samples) {
  const int64_t end = samples.first + samples.count, first = own_from(a, samples.first);
  return Span{first, (end == a.in ? a.mid : own_from(a, end)) - first};
}

DEVICE bool contains(const Span& span, int64_t place) {
  return place >= span.first && place < span.first + span.count;
}

template <class T>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_grad_kernel(const FilteredArgs<Accumulate<T>> a) {
  using A = Accumulate<T>;
  SHARED_MEMORY(A, shared);
  const int depth = a.channels;
#pragma unroll 1
  for (int64_t index = blockIdx.x; index < a.tiles; index += gridDim.x) {
    const FilteredTile<A> tile(a, index, a.x.in, a.y.in);
    const Span mid_x = positions_of_samples(a.x, tile.x.first, tile.x.first + tile.x.count - 1);
    const Span mid_y = positions_of_samples(a.y, tile.y.first, tile.y.first + tile.y.count - 1);
    const Span in_x = samples_of_positions(a.x, mid_x);
    const Span in_y = samples_of_positions(a.y, mid_y);
    const Span out_x = outputs_of_positions(a.x, mid_x);
    const Span out_y = outputs_of_positions(a.y, mid_y);
    const int in_w = static_cast<int>(in_x.count), mid_w = static_cast<int>(mid_x.count);
    const int out_w = static_cast<int>(out_x.count), tile_w = static_cast<int>(tile.x.count);

    A* const input = shared + a.at.input;
    A* const grad = shared + a.at.grad;
    load_image<T>(a.input, a.in, tile.n, tile.channel, in_y, in_x, depth, tile.channels, a.bias,
                  input);
    load_image<T>(a.grad, a.grad_strides, tile.n, tile.channel, out_y, out_x, depth,
                  tile.channels, static_cast<const A*>(nullptr), grad);
    BARRIER(48);

    // Along y: the signal between the filters and its gradient
    const PositionTerms<int> up_x(a.x, mid_x, in_x), up_y(a.y, mid_y, in_y);
    const PositionGradTerms<int> grad_x(a.x, mid_x, out_x), grad_y(a.y, mid_y, out_y);
    A* const columns = shared + a.at.columns;
    A* const grad_columns = shared + a.at.grad_columns;
    if (!a.up_kernel) {
      for_each_element(mid_y.count, in_x.count, depth, [&](int row, int column, int k) {
        columns[(row * in_w + column) * depth + k] =
            sum_down_columns(a.up_taps_y, input, in_w, depth, k, up_y, row, column);
      });
    }
    if (!a.down_kernel) {
      for_each_element(mid_y.count, out_x.count, depth, [&](int row, int column, int k) {
        grad_columns[(row * out_w + column) * depth + k] =
            sum_down_columns(a.down_taps_y, grad, out_w, depth, k, grad_y, row, column);
      });
    }
    BARRIER(49);

    // Along x, and back through the activation
    A* const mid = shared + a.at.mid;
    const Span own_x = own_positions(a.x, tile.x), own_y = own_positions(a.y, tile.y);
    A alpha_sum = 0, beta_sum = 0;
    for_each_element(mid_y.count, mid_x.count, depth, [&](int row, int column, int k) {
      const A m = a.up_kernel
                      ? sum_2d(a.up_kernel, a.x.up_taps, input, in_w, depth, k, up_y, row, up_x,
                               column)
                      : sum_along_row(a.up_taps_x, columns, in_w, depth, k, up_x, row, column);
      const A g = a.down_kernel
                      ? sum_2d(a.down_kernel, a.x.down_taps, grad, out_w, depth, k, grad_y, row,
                               grad_x, column)
                      : sum_along_row(a.down_taps_x, grad_columns, out_w, depth, k, grad_x, row,
                                      column);
      const int64_t channel = tile.channel + (k < tile.channels ? k : 0);
      A by_alpha = 0, by_beta = 0;
      mid[(row * mid_w + column) * depth + k] =
          activation_of(a, channel).grad(m, g, &by_alpha, &by_beta);
      if (contains(own_x, mid_x.first + column) && contains(own_y, mid_y.first + row)) {
        alpha_sum += by_alpha, beta_sum += by_beta;
      }
    });
    BARRIER(50);

    // Back through the first filter
    const SampleGradTerms<int> sample_x(a.x, tile.x, mid_x), sample_y(a.y, tile.y, mid_y);
    A* const rows = shared + a.at.rows;
    if (!a.up_kernel) {
      for_each_element(mid_y.count, tile.x.count, depth, [&](int row, int column, int k) {
        rows[(row * tile_w + column) * depth + k] =
            sum_along_row(a.up_taps_x, mid, mid_w, depth, k, sample_x, row, column);
      });
      BARRIER(51);
    }
    A bias_sum = 0;
    T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
    for_each_element(tile.y.count, tile.x.count, depth, [&](int row, int column, int k) {
      if (k >= tile.channels) return;
      const A sum = a.up_kernel
                        ? sum_2d(a.up_kernel, a.x.up_taps, mid, mid_w, depth, k, sample_y, row,
                                 sample_x, column)
                        : sum_down_columns(a.up_taps_y, rows, tile_w, depth, k, sample_y, row,
                                           column);
      bias_sum += sum;
      to[(tile.y.first + row) * a.out.h + (tile.x.first + column) * a.out.w + k * a.out.c] =
          from_accumulate<T>(sum);
    });
    A* const sums = shared + a.at.sums;
    const int64_t first_sum = tile.plane * tile.tiles + tile.tile;
    const auto add = [&](A sum, A* to) {
      if (to) add_block_sums(sum, sums, depth, tile.channels, to + first_sum, tile.tiles);
    };
    add(bias_sum, a.bias_sums);
    add(alpha_sum, a.alpha_sums);
    add(beta_sum, a.beta_sums);
  }
}

// The sums of all blocks of a channel, in double and in a fixed order: a block serves a channel.
template <class A>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_sums_kernel(const A* sums, int64_t n, int64_t c, int64_t blocks, A* to) {
  SHARED_MEMORY(double, shared);
#pragma unroll 1
  for (int64_t channel = blockIdx.x; channel < c; channel += gridDim.x) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n * blocks; i += blockDim.x) {
      const int64_t sample = i / blocks;
      sum += static_cast<double>(sums[(sample * c + channel) * blocks + (i - sample * blocks)]);
    }
    add_block_sums(sum, shared, 1, 1, to + channel, 1);
  }
}

// ------------------------------------------------------------------ without a tile

// One plane in global memory, and all of its axes.
template <class T>
struct DirectPlane {
  using A = Accumulate<T>;
  const FilteredArgs<A>& a;
  const T *input, *grad;
  A bias;
  Activation<A> activation;
  Span in_x, in_y, mid_x, mid_y, out_x, out_y;

  DEVICE DirectPlane(const FilteredArgs<A>& args, int64_t n, int64_t channel)
      : a(args),
        input(static_cast<const T*>(args.input) + n * args.in.n + channel * args.in.c),
        grad(static_cast<const T*>(args.grad) + n * args.grad_strides.n +
             channel * args.grad_strides.c),
        bias(args.bias ? args.bias[channel] : A(0)),
        activation(activation_of(args, channel)),
        in_x{0, args.x.in},
        in_y{0, args.y.in},
        mid_x{0, args.x.mid},
        mid_y{0, args.y.mid},
        out_x{0, args.x.out},
        out_y{0, args.y.out} {}

  // A sum of value(row, column) over terms along y and x.
  template <class Y, class X, class Value>
  DEVICE A sum(const A* kernel, const A* taps_x, const A* taps_y, int64_t width, const Y& terms_y,
               int64_t y, const X& terms_x, int64_t x, const Value& value) const {
    A total = 0;
    terms_y.visit(y, [&](int64_t tap_y, int64_t row) {
      A row_sum = 0;
      bool any = false;  // else there is no sum that the row's tap could multiply
      terms_x.visit(x, [&](int64_t tap_x, int64_t column) {
        any = true;
        row_sum += (kernel ? kernel[tap_y * width + tap_x] : taps_x[tap_x]) * value(row, column);
      });
      if (any) total += kernel ? row_sum : row_sum * taps_y[tap_y];
    });
    return total;
  }

  DEVICE A mid(int64_t y, int64_t x) const {
    const PositionTerms<int64_t> terms_x(a.x, mid_x, in_x), terms_y(a.y, mid_y, in_y);
    return sum(a.up_kernel, a.up_taps_x, a.up_taps_y, a.x.up_taps, terms_y, y, terms_x, x,
               [&](int64_t row, int64_t column) {
                 return to_accumulate(input[row * a.in.h + column * a.in.w]) + bias;
               });
  }

  DEVICE A output(int64_t y, int64_t x) const {
    const OutputTerms<int64_t> terms_x(a.x, out_x, mid_x), terms_y(a.y, out_y, mid_y);
    return sum(a.down_kernel, a.down_taps_x, a.down_taps_y, a.x.down_taps, terms_y, y, terms_x, x,
               [&](int64_t row, int64_t column) { return activation.value(mid(row, column)); });
  }

  // The gradient of the activated signal.
  DEVICE A activated_grad(int64_t y, int64_t x) const {
    const PositionGradTerms<int64_t> terms_x(a.x, mid_x, out_x), terms_y(a.y, mid_y, out_y);
    return sum(a.down_kernel, a.down_taps_x, a.down_taps_y, a.x.down_taps, terms_y, y, terms_x, x,
               [&](int64_t row, int64_t column) {
                 return to_accumulate(grad[row * a.grad_strides.h + column * a.grad_strides.w]);
               });
  }

  DEVICE A input_grad(int64_t y, int64_t x) const {
    const SampleGradTerms<int64_t> terms_x(a.x, in_x, mid_x), terms_y(a.y, in_y, mid_y);
    return sum(a.up_kernel, a.up_taps_x, a.up_taps_y, a.x.up_taps, terms_y, y, terms_x, x,
               [&](int64_t row, int64_t column) {
                 A none = 0;
                 return activation.grad(mid(row, column), activated_grad(row, column), &none,
                                        &none);
               });
  }
};

// f(y, x) for the elements of a plane that a block of `direct` serves, by all of its threads.
// Each plane has a.blocks blocks.
template <class F>
DEVICE void for_each_direct(int64_t block, int64_t height, int64_t width, const F& f) {
  const int64_t first = block * kDirectElements;
  const int64_t last = clamp_to(height * width - first, 0, kDirectElements) + first;
  for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x) f(i / width, i % width);
}

template <class T>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_direct_kernel(const FilteredArgs<Accumulate<T>> a) {
  for (int64_t index = blockIdx.x; index < a.n * a.c * a.blocks; index += gridDim.x) {
    const int64_t plane = index / a.blocks, n = plane / a.c, channel = plane - n * a.c;
    const DirectPlane<T> direct(a, n, channel);
    T* const to = static_cast<T*>(a.output) + n * a.out.n + channel * a.out.c;
    for_each_direct(index - plane * a.blocks, a.y.out, a.x.out, [&](int64_t y, int64_t x) {
      to[y * a.out.h + x * a.out.w] = from_accumulate<T>(direct.output(y, x));
    });
  }
}

template <class T>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_grad_direct_kernel(const FilteredArgs<Accumulate<T>> a) {
  using A = Accumulate<T>;
  SHARED_MEMORY(A, shared);
  for (int64_t index = blockIdx.x; index < a.n * a.c * a.blocks; index += gridDim.x) {
    const int64_t plane = index / a.blocks, n = plane / a.c, channel = plane - n * a.c;
    const DirectPlane<T> direct(a, n, channel);
    T* const to = static_cast<T*>(a.output) + n * a.out.n + channel * a.out.c;
    A bias_sum = 0;
    for_each_direct(index - plane * a.blocks, a.y.in, a.x.in, [&](int64_t y, int64_t x) {
      const A grad = direct.input_grad(y, x);
      bias_sum += grad;
      to[y * a.out.h + x * a.out.w] = from_accumulate<T>(grad);
    });
    if (a.bias_sums) add_block_sums(bias_sum, shared, 1, 1, a.bias_sums + index, 1);
  }
}

// The gradients of the activation's parameters: a.blocks counts blocks of positions here.
template <class T>
__global__ void __launch_bounds__(kFilteredThreads)
    filtered_act_parameter_grad_direct_kernel(const FilteredArgs<Accumulate<T>> a) {
  using A = Accumulate<T>;
  SHARED_MEMORY(A, shared);
  for (int64_t index = blockIdx.x; index < a.n * a.c * a.blocks; index += gridDim.x) {
    const int64_t plane = index / a.blocks, n = plane / a.c, channel = plane - n * a.c;
    const DirectPlane<T> direct(a, n, channel);
    A alpha_sum = 0, beta_sum = 0;
    for_each_direct(index - plane * a.blocks, a.y.mid, a.x.mid, [&](int64_t y, int64_t x) {
      direct.activation.grad(direct.mid(y, x), direct.activated_grad(y, x), &alpha_sum,
                             &beta_sum);
    });
    if (a.alpha_sums) add_block_sums(alpha_sum, shared, 1, 1, a.alpha_sums + index, 1);
    if (a.beta_sums) add_block_sums(beta_sum, shared, 1, 1, a.beta_sums + index, 1);
  }
}

}  // namespace resample_layers
