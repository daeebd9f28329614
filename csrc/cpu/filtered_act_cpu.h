// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU kernels of filtered_act: they know pointers, sizes and strides
// (../filtered_act.h), and nothing of tensors or of torch.
#pragma once

#include "../filtered_act.h"
#include "upfirdn2d_cpu.h"

namespace resample_layers {

// Sizes of the input of at least 1x1. The upsampled signal exists only in blocks of a thread.
// They take at most 440 KB where filters have up to 24 taps, in every layout and dtype; those of
// longer filters may take more.
void filtered_act_cpu(const FilteredActParams& params, ParallelFor parallel_for,
                      int num_threads);

// The order of all sums follows from the shapes alone: results do not depend on the threads.
void filtered_act_grad_cpu(const FilteredActGradParams& params, ParallelFor parallel_for,
                           int num_threads);

}  // namespace resample_layers
