// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels for AVX2, FMA and F16C.
// The target is set here, not on the command line: all sources share one set of
// compiler flags. Headers come first, so that nothing of theirs is compiled for it.
#include <cstddef>

#include "plan.h"
#include "signals.h"
#include "storage.h"

#ifdef RESAMPLE_LAYERS_CPU_LEVELS

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

#include "../nonlinearity.h"  // templates only, compiled for this target

namespace resample_layers {
namespace cpu {
namespace {

#include "vec_avx2.h"

#include "kernels.inc"

}  // namespace

const Kernels avx2_kernels = {
    32,
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

#pragma GCC pop_options

#endif  // RESAMPLE_LAYERS_CPU_LEVELS
