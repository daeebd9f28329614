// SPDX-License-Identifier: BSD-3-Clause
//
// Blocks: planes of rows of the accumulate type in a thread's scratch, which filtered_act
// works in; and what the kernels of every instruction set do to them. Plain data, as plan.h.
#pragma once

#include <cstdint>

namespace resample_layers {
namespace cpu {

// Between an array and a block, with the bias on the way into the block. Channels count from
// the block's first plane.
struct BlockCopy {
  void* stored;                                       // [dtype]
  int64_t stored_plane, stored_row, stored_column;    // strides  [elements]
  void* block;                                        // [accumulate type]
  int64_t block_plane, block_row;                     // strides  [elements]
  int64_t planes, rows, columns;
  const void* bias;         // by plane; null: none     [accumulate type]
};

// The nonlinearity.
struct ActivationParams {
  int32_t nonlinearity;
  double slope, gain;
  double limit;             // largest magnitude, or infinity
  const void* alpha;        // by channel; null: none   [accumulate type]
  const void* beta;
};

// The nonlinearity on a block of m; for the gradient also on the block of g of the same size.
// A plane is a channel.
struct BlockActivation : ActivationParams {
  void* m;
  int64_t m_plane, m_row;   // strides                  [elements]
  void* g;                  // gradient: g_a, which becomes g_m
  int64_t g_plane, g_row;
  int64_t planes, rows, columns;
  // Gradient: sums by channel, null where neither is wanted, of the samples in these rows and
  // columns.
  double* sums_alpha;
  double* sums_beta;
  int64_t owned_row0, owned_row1, owned_column0, owned_column1;
};

struct SignalTile;  // signals.h

// The kernels of one instruction set, by Dtype; of the accumulate types: float, double.
struct BlockKernels {
  void (*load[4])(const BlockCopy& copy);
  void (*store[4])(const BlockCopy& copy);
  void (*sum[2])(const BlockCopy& copy, double* sums);  // adds each channel's samples
  void (*activate[2])(const BlockActivation& activation);
  void (*differentiate[2])(const BlockActivation& activation);
  // The op, or where there is a gradient of the output, its gradient.
  void (*signal[4])(const SignalTile& tile, void* scratch, const void** pointers);
};

}  // namespace cpu
}  // namespace resample_layers
