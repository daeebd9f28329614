// SPDX-License-Identifier: BSD-3-Clause
//
// What one call comes to after the integer arithmetic: the polyphase form of
// both axes and the cut into tiles. Made once per call by upfirdn2d_cpu.cpp,
// read by the kernels of every instruction set. Plain data on purpose: nothing
// here may be compiled twice under two instruction sets.
//
// Polyphase. With g = gcd(up, down), outputs x = classes * m + q (classes =
// up / g) of one class q meet the same taps, every up-th one, and each step of
// m moves them by step = down / g input samples:
//
//   out[classes * m + q] = sum over t of weight[q][t] * in[first + shift[q] + step * m + t]
//
// So an inserted zero is never met. `m` is called the group below.
#pragma once

#include <cstdint>

#include "../upfirdn2d.h"

namespace resample_layers {
namespace cpu {

struct AxisPlan {
  int64_t classes;        // up / g                               [outputs per group]
  int64_t step;           // down / g                             [samples per group]
  int64_t first;          // sample that group 0 reads first      [samples]
  int64_t span;           // samples that one group reaches over  [samples], >= 1
  int64_t groups;         // ceil(out_size / classes)
  const int64_t* shift;   // [classes] first sample of a class    [samples after first]
  const int64_t* taps;    // [classes] number of taps, 0 possible
  const int64_t* weight;  // [classes] where a class's weights begin
  const int64_t* offset;  // [classes] first tap, in reading order; then every up-th
  int64_t up;             //                                      [factor]
};

struct Plan {
  const void* input;
  void* output;             // the op: out; the kernel's gradient: not used
  const void* grad;         // the kernel's gradient only
  const EpilogueParams* epilogue;  // null: none
  Plane4d in, out;          // out: of the gradient where there is one
  AxisPlan x, y;
  bool separable;
  const void* weights_x;    // by class, then tap             [accumulate type]
  const void* weights_y;    //
  const void* weights_xy;   // by y class, x class, y tap, x tap; not separable
  const int64_t* tap_phase; // by x class, then tap: the phase of its samples,
  const int64_t* tap_pixel; // and the first of them there    [pixels]
  int64_t tap_count;        // of both

  // A tile: `channels` interleaved channels (1: contiguous), `tile_groups`
  // groups of columns; it is walked down in blocks of `block_groups` groups of
  // rows, with `row_slots` fetched rows in a ring.
  int64_t channels;         // [elements per pixel of a row]
  int64_t channel_tiles;    // per image
  int64_t tile_groups;      // [groups in x]
  int64_t x_tiles;
  int64_t unit_groups;      // rows of one unit of work       [groups in y]
  int64_t y_units;
  int64_t block_groups;     // [groups in y]
  int64_t row_slots;        // fetched rows that are kept     [rows], a power of two
  bool pixelwise;           // rates in x by combining pixel by pixel; else by phases

  // How rows of a separable kernel are read and written.
  bool direct;              // input rows are read where they lie, not fetched
  bool margins_fetched;     // fetched rows have margins, and phases, already
  bool paired;              // bfloat16, rate 1: even and odd elements apart, as they
                            // fall out of one 32-bit load; tap tables count both
  bool streamed;            // 16-bit types, few taps: both passes in registers
  bool sliding;             // pixels of two vectors and more, few taps: the same
  bool far;                 // what is large comes from memory: prefetch
  bool joined;              // two classes in x, of equal taps, alternate by elements

  // Scratch of a thread, in elements of the accumulate type but for the last.
  int64_t phase_pitch;      // between phases of a row
  int64_t slot_pitch;       // between rows
  int64_t most_lead;        // of a row, within its pitch; a power of two
  int64_t line_pitch;       // between rows before they are split into phases
  int64_t slots_at, buffer_at, phases_at, line_at, zeros_at, places_at, grad_at, sums_at;
  int64_t phase_stride;     // between two phases of the output (phases_at)
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
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(RESAMPLE_LAYERS_CPU_PLAIN)  // set by a test: code for other processors
#define RESAMPLE_LAYERS_CPU_LEVELS 1
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

// Elements past the end of every scratch row block that vector code may read.
constexpr int64_t kSlack = 64;

}  // namespace cpu
}  // namespace resample_layers
