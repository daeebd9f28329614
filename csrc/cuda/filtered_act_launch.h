// SPDX-License-Identifier: BSD-3-Clause
//
// Launching the kernels of filtered activations. Each storage type instantiates its kernels in a
// file of its own (filtered_act_<type>.cu), so that a build can compile them side by side.
#pragma once

#include <cuda_runtime_api.h>

#include "filtered_act_plan.cuh"

namespace resample_layers {

template <class T>
cudaError_t launch_filtered(const FilteredActParams& p, const FilteredLimits& limits,
                            cudaStream_t stream);
template <class T>
cudaError_t launch_filtered(const FilteredActGradParams& p, const FilteredLimits& limits,
                            void* workspace, cudaStream_t stream);

}  // namespace resample_layers

#if defined(FILTERED_ACT_TYPE)
namespace resample_layers {

template <class Kernel, class... Arguments>
cudaError_t start_filtered(Kernel kernel, int64_t blocks, unsigned block, int64_t shared,
                           cudaStream_t stream, Arguments... arguments) {
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared));
    if (error != cudaSuccess) return error;
  }
  const unsigned grid = static_cast<unsigned>(std::min<int64_t>(blocks, 0x7fffffff));
  kernel<<<grid, block, static_cast<size_t>(shared), stream>>>(arguments...);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_filtered(const FilteredActParams& p, const FilteredLimits& limits,
                            cudaStream_t stream) {
  auto a = make_filtered_args<Accumulate<T>>(p, nullptr);
  const FilteredPlan plan = plan_filtered(&a, false, limits);
  if (plan.way != FilteredWay::direct) {
    return start_filtered(filtered_tile_kernel<T, false>(plan.way), a.tiles, plan.block,
                          plan.shared, stream, a);
  }
  a.blocks = filtered_direct_blocks(a.y.out, a.x.out);
  return start_filtered(filtered_act_direct_kernel<T>, a.n * a.c * a.blocks, plan.block, 0, stream,
                        a);
}

template <class T>
cudaError_t launch_filtered(const FilteredActGradParams& p, const FilteredLimits& limits,
                            void* workspace, cudaStream_t stream) {
  using A = Accumulate<T>;
  auto a = make_filtered_args<A>(p, &p);
  const FilteredPlan plan = plan_filtered(&a, true, limits);
  const FilteredSums<A> sums(a, plan);
  place_sums(p, sums, workspace, &a);
  const int64_t reduced = plan.block * static_cast<int64_t>(sizeof(A));
  cudaError_t error;
  if (plan.way != FilteredWay::direct) {
    error = start_filtered(filtered_tile_kernel<T, true>(plan.way), a.tiles, plan.block,
                           plan.shared, stream, a);
  } else {
    a.blocks = sums.bias;
    error = start_filtered(filtered_act_grad_direct_kernel<T>, a.n * a.c * a.blocks, plan.block,
                           reduced, stream, a);
    if (error == cudaSuccess && (a.alpha_sums || a.beta_sums)) {
      a.blocks = sums.parameters;
      error = start_filtered(filtered_act_parameter_grad_direct_kernel<T>, a.n * a.c * a.blocks,
                             plan.block, reduced, stream, a);
    }
  }
  const auto add = [&](const A* from, int64_t blocks, void* to) {
    if (error != cudaSuccess || !from) return;
    error = start_filtered(filtered_act_sums_kernel<A>, a.c, plan.block,
                           plan.block * static_cast<int64_t>(sizeof(double)), stream, from, a.n,
                           a.c, blocks, static_cast<A*>(to));
  };
  add(a.bias_sums, sums.bias, p.grad_bias);
  add(a.alpha_sums, sums.parameters, p.grad_alpha);
  add(a.beta_sums, sums.parameters, p.grad_beta);
  return error;
}

template cudaError_t launch_filtered<FILTERED_ACT_TYPE>(const FilteredActParams&,
                                                        const FilteredLimits&, cudaStream_t);
template cudaError_t launch_filtered<FILTERED_ACT_TYPE>(const FilteredActGradParams&,
                                                        const FilteredLimits&, void*,
                                                        cudaStream_t);

}  // namespace resample_layers
#endif
