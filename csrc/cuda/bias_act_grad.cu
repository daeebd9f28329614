// SPDX-License-Identifier: BSD-3-Clause
//
// The launches of the activation's gradient.
#include "bias_act_grad.cuh"

#include "upfirdn2d_cuda.h"

namespace resample_layers {
namespace {

template <class T>
cudaError_t launch(const BiasActGradParams& p, void* workspace, cudaStream_t stream) {
  const BiasActGradPlan plan = plan_bias_act_grad(p, workspace);
  const auto kernel = bias_act_grad_kernel_of<T>(plan);
  // Only sums over more than 2^31 tiny samples come so far
  constexpr int64_t kMostBlocks = 0x7fffffff;
  if (plan.blocks > kMostBlocks || plan.sum_blocks > kMostBlocks) {
    return cudaErrorInvalidConfiguration;
  }
  kernel<<<static_cast<unsigned>(plan.blocks), kActGradThreads, plan.shared, stream>>>(
      plan.args, make_bias_act_grad<T>(p));
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || plan.sum_blocks == 0) return error;
  bias_act_sum_kernel<Accumulate<T>>
      <<<static_cast<unsigned>(plan.sum_blocks), kActSumThreads, plan.sum_shared, stream>>>(
          plan.sums);
  return cudaGetLastError();
}

}  // namespace

int64_t bias_act_grad_workspace(const BiasActGradParams& params) {
  return plan_bias_act_grad(params, nullptr).workspace;
}

cudaError_t bias_act_grad_cuda(const BiasActGradParams& params, void* workspace,
                               cudaStream_t stream) {
  switch (params.dtype) {
    case Dtype::float16: return launch<Half>(params, workspace, stream);
    case Dtype::bfloat16: return launch<BFloat16>(params, workspace, stream);
    case Dtype::float32: return launch<float>(params, workspace, stream);
    case Dtype::float64: return launch<double>(params, workspace, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace resample_layers
