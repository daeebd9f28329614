// SPDX-License-Identifier: BSD-3-Clause
//
// filtered_act along signals: images of one row, whose filters have one tap in y.
#pragma once

#include "../filtered_act.h"
#include "upfirdn2d_cpu.h"

namespace resample_layers {
namespace cpu {

// Whether this way serves a call. `out`: of the forward pass.
bool is_signal(const FilteredActParams& params, const Plane4d& out);

void filtered_act_signals(const FilteredActParams& params, ParallelFor parallel_for,
                          int num_threads);
void filtered_act_grad_signals(const FilteredActGradParams& params, ParallelFor parallel_for,
                               int num_threads);

}  // namespace cpu
}  // namespace resample_layers
