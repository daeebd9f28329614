// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels for what the compiler assumes: SSE2 on x86-64, NEON on ARM.
#include <cstddef>

#include "../nonlinearity.h"
#include "plan.h"
#include "signals.h"
#include "storage.h"

namespace resample_layers {
namespace cpu {
namespace {

#include "vec_plain.h"

#include "kernels.inc"

}  // namespace

const Kernels baseline_kernels = {
    16,
    {run_units<Half>, run_units<BFloat16>, run_units<float>, run_units<double>},
    {grad_units<Half>, grad_units<BFloat16>, grad_units<float>, grad_units<double>},
    {bias_act_grad_units<Half>, bias_act_grad_units<BFloat16>, bias_act_grad_units<float>,
     bias_act_grad_units<double>},
    {{load_block<Half>, load_block<BFloat16>, load_block<float>, load_block<double>},
     {store_block<Half>, store_block<BFloat16>, store_block<float>, store_block<double>},
     {sum_block<float>, sum_block<double>},
     {activate_block<float>, activate_block<double>},
     {differentiate_block<float>, differentiate_block<double>},
     {signal_tile<Half>, signal_tile<BFloat16>, signal_tile<float>, signal_tile<double>}}};

}  // namespace cpu
}  // namespace resample_layers
