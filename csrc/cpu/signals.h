// SPDX-License-Identifier: BSD-3-Clause
//
// Tiles of signals: what the kernels of every instruction set need to know to compute
// filtered_act, or its gradient, along rows of samples. Plain data, as plan.h.
//
// Along a signal, the upsampled m lies in scratch as `period` components, where the period is
// the least common multiple of up and down: component c holds the samples c, c + period, ... So
// no filter splits or joins rows between its neighbours, and every sum is one of whole rows:
//
//   to[c][i] = sum over t of weight[c][t] * from[component[c][t]][i + offset[c][t]]
//
// The input lies as period / up components, and the output as period / down. Where up and down
// are equal, both are rows as they come.
#pragma once

#include <cstdint>

#include "blocks.h"
#include "ranges.h"

namespace resample_layers {
namespace cpu {

// A row in scratch: the elements [begin, end) of each component.
struct SignalRow {
  int64_t at;                // of element `begin` of component 0   [elements of scratch]
  int64_t components;
  int64_t pitch;             // between components                  [elements]
  int64_t begin, end;        //                                     [elements of a component]
};

// The sum that makes one component.
struct SignalSum {
  int64_t taps;              // 0: zeros
  const int64_t* component;  // [taps] of the source
  const int64_t* offset;     // [taps]                              [elements of a component]
  const void* weights;       // [taps]                              [accumulate type]
};

// Rows of a tile: each is a channel. Of the arrays, pointers are those of the first sample that
// is read or written in the first row, and samples of a row lie side by side.
struct SignalTile : ActivationParams {
  int64_t rows;
  const void* input;         //                                     [dtype]
  const void* grad;          // gradient only                       [dtype]
  void* output;              // the output; gradient: of the input  [dtype]
  int64_t input_row, grad_row, output_row;  // strides              [elements]
  const void* bias;          // by row; null: none                  [accumulate type]
  bool replicate;

  const SignalSum* up;       // by component of m
  const SignalSum* down;     // forward: by component of the output
  const SignalSum* down_adjoint;  // gradient: by component of m
  const SignalSum* up_adjoint;    // gradient: by component of the input

  SignalRow in, mid, out;    // out: of the output, or of the gradient of the input
  SignalRow grads, g;        // gradient: of the output's; g_a, which becomes g_m
  int64_t line_at;           // a row before it is split, or after it was joined
  // Far beyond the ends of a continued signal, rows hold what is read or written at another place
  // than the array does; the pointers above are those of the array.
  Range in_have;             // what is read of the input           [samples]
  Range mid_have;            // what exists of m                    [samples]
  Range mid_elements;        // that hold it
  Range write;               // what is written                     [samples]
  Range out_elements;        // that hold it
  // Gradient only.
  Range grad_have;           // what is read of grad                [samples]
  Range span;                // of g_a, with what belongs to the ends of a  [samples]
  Range span_elements;       // that hold it
  Range whole;               // of the input's gradient, with what belongs to its ends  [samples]
  Range owned;               // of m, that is added to the sums     [samples]
  double* sums[3];           // of bias, alpha, beta, by row; null: not wanted
};

}  // namespace cpu
}  // namespace resample_layers
