// SPDX-License-Identifier: BSD-3-Clause
//
// The launches: choose a variant, start it on the stream, report the error.
#include "upfirdn2d_cuda.h"

#include <cstdio>

#include "launch_tile.h"
#include "plan.cuh"

namespace resample_layers {

// Instantiated in upfirdn2d_<type>.cu.
extern template cudaError_t launch_tile<Half>(const TilePlan&, const EpilogueParams*,
                                              cudaStream_t);
extern template cudaError_t launch_tile<BFloat16>(const TilePlan&, const EpilogueParams*,
                                                  cudaStream_t);
extern template cudaError_t launch_tile<float>(const TilePlan&, const EpilogueParams*,
                                               cudaStream_t);

namespace {

// The current device's limits. Attributes are cached by the driver; no synchronisation.
cudaError_t device_limits(Limits* limits) {
  int device = 0, multiprocessors = 0, shared = 0, shared_block = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&shared_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  limits->multiprocessors = multiprocessors;
  limits->shared = static_cast<size_t>(shared);
  limits->shared_block = static_cast<size_t>(shared_block);
  return cudaSuccess;
}

template <class T, class Epilogue>
cudaError_t launch_generic(const UpFirDn2dParams& p, const Epilogue& epilogue,
                           cudaStream_t stream) {
  if (fits_32_bits(p)) {
    generic_kernel<T, int32_t, Epilogue>
        <<<generic_blocks(p), 256, 0, stream>>>(make_generic_args<int32_t>(p), epilogue);
  } else {
    generic_kernel<T, int64_t, Epilogue>
        <<<generic_blocks(p), 256, 0, stream>>>(make_generic_args<int64_t>(p), epilogue);
  }
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_generic(const UpFirDn2dParams& p, const EpilogueParams* epilogue,
                           cudaStream_t stream) {
  if (epilogue == nullptr) return launch_generic<T>(p, Identity<T>{}, stream);
  return launch_generic<T>(p, make_bias_act<T>(*epilogue), stream);
}

template <class T, class Epilogue>
cudaError_t launch_pointwise(const PointwisePlan& plan, const Epilogue& epilogue,
                             cudaStream_t stream) {
  const auto kernel = pointwise_kernel_of<T, Epilogue>(plan);
  kernel<<<plan.blocks, kPointwiseThreads, 0, stream>>>(plan.args, epilogue);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_pointwise(const UpFirDn2dParams& p, const EpilogueParams* epilogue,
                             cudaStream_t stream) {
  const PointwisePlan plan = plan_pointwise(p, epilogue);
  if (epilogue == nullptr) return launch_pointwise<T>(plan, Identity<T>{}, stream);
  return launch_pointwise<T>(plan, make_bias_act<T>(*epilogue), stream);
}

// The kernels of every type that are no row of the table.
template <class T>
cudaError_t launch_other(const TilePlan& plan, const UpFirDn2dParams& p,
                         const EpilogueParams* epilogue, cudaStream_t stream) {
  return plan.variant == kPointwise ? launch_pointwise<T>(p, epilogue, stream)
                                    : launch_generic<T>(p, epilogue, stream);
}

cudaError_t launch(const UpFirDn2dParams& p, const EpilogueParams* epilogue,
                   cudaStream_t stream) {
  if (elements(p.out) == 0) return cudaSuccess;
  Limits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  const TilePlan plan = choose(p, limits, epilogue != nullptr);
  const bool tile = plan.variant >= 0;
  switch (p.dtype) {
    case Dtype::float16:
      return tile ? launch_tile<Half>(plan, epilogue, stream)
                  : launch_other<Half>(plan, p, epilogue, stream);
    case Dtype::bfloat16:
      return tile ? launch_tile<BFloat16>(plan, epilogue, stream)
                  : launch_other<BFloat16>(plan, p, epilogue, stream);
    case Dtype::float32:
      return tile ? launch_tile<float>(plan, epilogue, stream)
                  : launch_other<float>(plan, p, epilogue, stream);
    case Dtype::float64:
      return launch_other<double>(plan, p, epilogue, stream);
  }
  return cudaErrorInvalidValue;
}

template <class T, class Index>
cudaError_t launch_kernel_grad(const KernelGradParams& p, void* workspace, cudaStream_t stream) {
  const KernelGradArgs<Index> a = make_kernel_grad_args<Index>(p, workspace);
  const size_t shared = sizeof(Accumulate<T>) * kGradTaps * kGradThreads;
  kernel_grad_partial<T, Index><<<grad_blocks(p), kGradThreads, shared, stream>>>(a);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  const unsigned blocks = static_cast<unsigned>(ceil_div(p.kh * p.kw, kGradThreads));
  kernel_grad_final<T, Index><<<blocks, kGradThreads, 0, stream>>>(a);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_kernel_grad(const KernelGradParams& p, void* workspace, cudaStream_t stream) {
  return fits_32_bits(p) ? launch_kernel_grad<T, int32_t>(p, workspace, stream)
                         : launch_kernel_grad<T, int64_t>(p, workspace, stream);
}

}  // namespace

cudaError_t upfirdn2d_cuda(const UpFirDn2dParams& params, cudaStream_t stream) {
  return launch(params, nullptr, stream);
}

cudaError_t upfirdn2d_bias_act_cuda(const UpFirDn2dParams& params, const EpilogueParams& epilogue,
                                    cudaStream_t stream) {
  return launch(params, &epilogue, stream);
}

int64_t upfirdn2d_kernel_grad_workspace(const KernelGradParams& params) {
  const int64_t size = params.dtype == Dtype::float64 ? sizeof(double) : sizeof(float);
  return grad_chunks(params) * params.kh * params.kw * size;
}

cudaError_t upfirdn2d_kernel_grad_cuda(const KernelGradParams& params, void* workspace,
                                       cudaStream_t stream) {
  switch (params.dtype) {
    case Dtype::float16: return launch_kernel_grad<Half>(params, workspace, stream);
    case Dtype::bfloat16: return launch_kernel_grad<BFloat16>(params, workspace, stream);
    case Dtype::float32: return launch_kernel_grad<float>(params, workspace, stream);
    case Dtype::float64: return launch_kernel_grad<double>(params, workspace, stream);
  }
  return cudaErrorInvalidValue;
}

const char* upfirdn2d_cuda_variant(const UpFirDn2dParams& params, bool fused, char* buffer,
                                   size_t size) {
  Limits limits;
  TilePlan plan{};
  plan.variant = kGeneric;
  if (device_limits(&limits) == cudaSuccess) plan = choose(params, limits, fused);
  if (plan.variant < 0) {
    std::snprintf(buffer, size, plan.variant == kPointwise ? "pointwise" : "generic");
  } else {
    const Variant& v = kVariants[plan.variant];
    const TileArgs& a = plan.args;
    const char* const method = v.method == Method::separable ? "sep"
                               : v.method == Method::columns ? "col"
                                                             : "pln";
    const char* const axes = v.axes == Axes::both ? "" : v.axes == Axes::x ? "-x" : "-y";
    std::snprintf(buffer, size, "%d:%s-%s%s-u%dd%d-t%d%s-b%d tile %dx%d slots %d block %u grid %u",
                  plan.variant, method, v.layout == Layout::contiguous ? "nchw" : "nhwc", axes,
                  v.up, v.down, v.taps, v.exact ? "" : "m", v.bytes, a.tile_h, a.tile_w, a.slots,
                  plan.block, plan.grid);
  }
  return buffer;
}

}  // namespace resample_layers
