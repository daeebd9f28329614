// SPDX-License-Identifier: BSD-3-Clause
//
// The entry points of filtered activations, which go to the kernels of the storage type.
#include "filtered_act_cuda.h"

#include "filtered_act_launch.h"

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

}  // namespace

cudaError_t filtered_act_cuda(const FilteredActParams& params, cudaStream_t stream) {
  FilteredLimits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  switch (params.dtype) {
    case Dtype::float16: return launch_filtered<Half>(params, limits, stream);
    case Dtype::bfloat16: return launch_filtered<BFloat16>(params, limits, stream);
    case Dtype::float32: return launch_filtered<float>(params, limits, stream);
    case Dtype::float64: return launch_filtered<double>(params, limits, stream);
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
    case Dtype::float16: return launch_filtered<Half>(params, limits, workspace, stream);
    case Dtype::bfloat16: return launch_filtered<BFloat16>(params, limits, workspace, stream);
    case Dtype::float32: return launch_filtered<float>(params, limits, workspace, stream);
    case Dtype::float64: return launch_filtered<double>(params, limits, workspace, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace resample_layers
