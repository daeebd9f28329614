// SPDX-License-Identifier: BSD-3-Clause
//
// The launches of filtered activations: plan a tile, start the kernels, report the error.
#include "filtered_act_cuda.h"

#include "filtered_act_plan.cuh"

namespace resample_layers {
namespace {

cudaError_t device_limits(FilteredLimits* limits) {
  int device = 0, shared = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  limits->shared_block = shared;
  return error;
}

template <class Kernel, class... Arguments>
cudaError_t start(Kernel kernel, int64_t blocks, unsigned block, int64_t shared,
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
cudaError_t launch(const FilteredActParams& p, const FilteredLimits& limits, cudaStream_t stream) {
  auto a = make_filtered_args<Accumulate<T>>(p, nullptr);
  const FilteredPlan plan = plan_filtered(&a, false, limits);
  if (plan.tiled) {
    return start(filtered_act_kernel<T>, a.tiles, plan.block, plan.shared, stream, a);
  }
  a.blocks = filtered_direct_blocks(a.y.out, a.x.out);
  return start(filtered_act_direct_kernel<T>, a.n * a.c * a.blocks, plan.block, 0, stream, a);
}

template <class T>
cudaError_t launch(const FilteredActGradParams& p, const FilteredLimits& limits, void* workspace,
                   cudaStream_t stream) {
  using A = Accumulate<T>;
  auto a = make_filtered_args<A>(p, &p);
  const FilteredPlan plan = plan_filtered(&a, true, limits);
  const FilteredSums<A> sums(a, plan);
  place_sums(p, sums, workspace, &a);
  const int64_t reduced = plan.block * static_cast<int64_t>(sizeof(A));
  cudaError_t error;
  if (plan.tiled) {
    error = start(filtered_act_grad_kernel<T>, a.tiles, plan.block, plan.shared, stream, a);
  } else {
    a.blocks = sums.bias;
    error = start(filtered_act_grad_direct_kernel<T>, a.n * a.c * a.blocks, plan.block, reduced,
                  stream, a);
    if (error == cudaSuccess && (a.alpha_sums || a.beta_sums)) {
      a.blocks = sums.parameters;
      error = start(filtered_act_parameter_grad_direct_kernel<T>, a.n * a.c * a.blocks, plan.block,
                    reduced, stream, a);
    }
  }
  const auto add = [&](const A* from, int64_t blocks, void* to) {
    if (error != cudaSuccess || !from) return;
    error = start(filtered_act_sums_kernel<A>, a.c, plan.block,
                  plan.block * static_cast<int64_t>(sizeof(double)), stream, from, a.n, a.c,
                  blocks, static_cast<A*>(to));
  };
  add(a.bias_sums, sums.bias, p.grad_bias);
  add(a.alpha_sums, sums.parameters, p.grad_alpha);
  add(a.beta_sums, sums.parameters, p.grad_beta);
  return error;
}

}  // namespace

cudaError_t filtered_act_cuda(const FilteredActParams& params, cudaStream_t stream) {
  FilteredLimits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  switch (params.dtype) {
    case Dtype::float16: return launch<Half>(params, limits, stream);
    case Dtype::bfloat16: return launch<BFloat16>(params, limits, stream);
    case Dtype::float32: return launch<float>(params, limits, stream);
    case Dtype::float64: return launch<double>(params, limits, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t filtered_act_grad_workspace(const FilteredActGradParams& params, int64_t* bytes) {
  FilteredLimits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  *bytes = params.dtype == Dtype::float64 ? sums_bytes<double>(params, limits)
                                          : sums_bytes<float>(params, limits);
  return cudaSuccess;
}

cudaError_t filtered_act_grad_cuda(const FilteredActGradParams& params, void* workspace,
                                   cudaStream_t stream) {
  FilteredLimits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  switch (params.dtype) {
    case Dtype::float16: return launch<Half>(params, limits, workspace, stream);
    case Dtype::bfloat16: return launch<BFloat16>(params, limits, workspace, stream);
    case Dtype::float32: return launch<float>(params, limits, workspace, stream);
    case Dtype::float64: return launch<double>(params, limits, workspace, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace resample_layers
