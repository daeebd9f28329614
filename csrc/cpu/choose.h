// SPDX-License-Identifier: BSD-3-Clause
//
// Choosing: from the params of one call to its plan.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace resample_layers {
namespace cpu {

// What AxisPlan points to.
struct AxisTables {
  std::vector<int64_t> offset, taps, weight_at, first_tap;
};

// A plan and the tables that it points to; A is the accumulate type.
template <class A>
struct PlannedCall {
  Plan plan{};
  AxisTables x, y;
  std::vector<int64_t> tap_component, tap_pixel;
  std::vector<A> weights_x, weights_y;

  PlannedCall() = default;
  PlannedCall(const PlannedCall&) = delete;  // the plan would point to the other's tables
};

template <class A>
void plan_upfirdn2d(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
                    int64_t vector_bytes, int num_threads, PlannedCall<A>& planned);

template <class A>
void plan_kernel_grad(const KernelGradParams& params, PlannedCall<A>& planned);

const char* name_of(Walk walk);
std::vector<const char*> walk_names();

}  // namespace cpu
}  // namespace resample_layers
