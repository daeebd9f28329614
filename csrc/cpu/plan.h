// SPDX-License-Identifier: BSD-3-Clause
//
// What one call comes to after the integer arithmetic: the polyphase form of
// both axes, the walk that serves it, and the cut into tiles. Made once per call
// by choose.cpp, read by the kernels of every instruction set. Plain data on
// purpose: nothing here may be compiled twice under two instruction sets.
//
// Polyphase, in the words of resample_layers/geometry.py. With g = gcd(up, down),
// outputs x = phases * step + q (phases = up / g) of one phase q use the same taps,
// every up-th one, and each step moves them by stride = down / g input samples:
//
//   out[phases * step + q] = sum over t of weight[q][t] * in[first + offset[q] + stride * step + t]
//
// So no inserted zero is multiplied. The other way round, a row of the input falls into
// `stride` components: component c holds the samples c, c + stride, c + 2 * stride, ...
#pragma once

#include <cstdint>

#include "../upfirdn2d.h"
#include "bias_act_grad.h"
#include "blocks.h"

namespace resample_layers {
namespace cpu {

struct AxisPlan {
  int64_t phases;            // up / g                            [outputs per step]
  int64_t stride;            // down / g                          [samples per step]
  int64_t first;             // sample that step 0 reads first    [samples]
  int64_t span;              // samples that one step reaches over  [samples], >= 1
  int64_t steps;             // ceil(out_size / phases)
  const int64_t* offset;     // [phases] first sample of a phase  [samples after first]
  const int64_t* taps;       // [phases] number of taps, 0 possible
  const int64_t* weight_at;  // [phases] where a phase's weights begin
  const int64_t* first_tap;  // [phases] first tap, in reading order; then every up-th
  int64_t up;                //                                   [factor]
};

// The ways through a tile; the table in choose.cpp says what each serves.
enum class Walk : int32_t {
  single,       // one output at a time, from the samples that exist
  planar,       // not separable: all taps at once
  sliding,      // long pixels, few taps: both passes in registers
  stream,       // 16-bit types, few taps: both passes in registers
  rows_direct,  // passes by rows, which are read where they lie
  rows,         // passes by rows, which are fetched first
};

// How the outputs of a row are made from the phases in x.
enum class Columns : int32_t {
  plain,        // there is one phase
  joined,       // two phases that alternate by elements, interleaved in registers
  interleaved,  // a row of each phase in scratch, then interleaved
  pixelwise,    // pixel by pixel, for long pixels
};

// Output rows that are summed in y together where they have most of their input rows in common.
constexpr int64_t kSharedRows = 4;

struct Plan {
  const void* input;
  void* output;             // the op: out; the kernel's gradient: not used
  const void* grad;         // the kernel's gradient only
  const EpilogueParams* epilogue;  // null: none
  Plane4d in, out;          // out: of the gradient where there is one
  AxisPlan x, y;
  Walk walk;                // the op only
  const UpFirDn2dParams* call;  // Walk::single, which has one phase and as many steps as
                                // there are outputs
  Columns columns;
  const void* weights_x;    // by phase, then tap             [accumulate type]
  const void* weights_y;    //
  const void* weights_xy;   // by y phase, x phase, y tap, x tap; Walk::planar
  const int64_t* tap_component;  // by x phase, then tap: the component of its samples,
  const int64_t* tap_pixel; // and the first of them there    [pixels]
  int64_t tap_count;        // of both

  // A tile: `channels` interleaved channels (1: contiguous), `tile_steps` steps of
  // columns; it is walked down in blocks of `block_steps` steps of rows, with
  // `row_slots` fetched rows in a ring.
  int64_t channels;         // [elements per pixel of a row]
  int64_t channel_tiles;    // per image
  int64_t tile_steps;       // [steps in x]
  int64_t x_tiles;
  int64_t unit_steps;       // rows of one unit of work       [steps in y]
  int64_t y_units;
  int64_t block_steps;      // [steps in y]
  int64_t shared_rows;      // output rows that are summed in y together: 1 or kSharedRows
  int64_t row_slots;        // fetched rows that are kept     [rows], a power of two
  bool far;                 // Walk::sliding: input and output are larger than caches: prefetch

  // Scratch of a thread, in elements of the accumulate type but for the last.
  int64_t component_pitch;  // between components of a row
  int64_t slot_pitch;       // between rows
  int64_t most_lead;        // of a row, within its pitch; a power of two
  int64_t line_pitch;       // between rows before they are split into components
  int64_t slots_at, buffer_at, phase_rows_at, line_at, zeros_at, tap_table_at, grad_at, sums_at;
  int64_t phase_pitch;      // between two phases of the output (phase_rows_at)
  // With an epilogue: a block of rows of sums, what is added to a row, and the biases.
  int64_t done_pitch;       // between rows of sums
  int64_t done_at, addends_at, biases_at;
  int64_t scratch_elements;
  int64_t pointer_count;    // of source pointers
};

// The kernels of one instruction set, by Dtype: units [begin, end) of a plan.
struct Kernels {
  int64_t vector_bytes;
  void (*upfirdn2d[4])(const Plan& plan, int64_t begin, int64_t end, void* scratch,
                       const void** pointers);
  // Adds to sums[tap row * kw + tap column] in double, taps in reading order.
  void (*kernel_grad[4])(const Plan& plan, int64_t begin, int64_t end, void* scratch,
                         const void** pointers, double* sums, int64_t kw);
  void (*bias_act_grad[4])(const BiasActGradPlan& plan, int64_t begin, int64_t end);
  BlockKernels blocks;
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(RESAMPLE_LAYERS_CPU_PLAIN)  // set by a test: code for other processors
#define RESAMPLE_LAYERS_CPU_LEVELS 1
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

// Those of the vector units in use; see cpu_capability in upfirdn2d_cpu.h.
const Kernels& kernels_in_use();

// Elements past the end of every scratch row block that vector code may read.
constexpr int64_t kSlack = 64;

}  // namespace cpu
}  // namespace resample_layers
