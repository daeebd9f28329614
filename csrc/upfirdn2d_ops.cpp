// SPDX-License-Identifier: BSD-3-Clause
//
// From tensors to pointers: check, allocate, fill the params (upfirdn2d.h), run
// the kernels, and offer all that to torch under one dispatch key.
//
// Compiled twice: for the CPU library, and with RESAMPLE_LAYERS_CUDA for the
// CUDA library. Only the LibTorch stable ABI is used, so that one binary serves
// every torch from TORCH_TARGET_VERSION on; nothing is registered by loading
// the file: resample_layers/ops/extension.py reads what the library says of
// itself, and registers it if that fits.
//
// Users' errors are found in Python. A check that fails here is a mistake in
// the package, or a call of the raw operator with arguments nobody looked at.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "filtered_act.h"
#include "nonlinearity.h"
#include "upfirdn2d.h"

#ifdef RESAMPLE_LAYERS_CUDA
#include <cuda_runtime_api.h>

#include "cuda/filtered_act_cuda.h"
#include "cuda/upfirdn2d_cuda.h"
// The only symbol that lives in libtorch_cuda, which a CPU-only torch lacks.
#pragma weak aoti_torch_get_current_cuda_stream
#else
#include "cpu/filtered_act_cpu.h"
#include "cpu/upfirdn2d_cpu.h"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define STRING_(x) #x
#define STRING(x) STRING_(x)

// Passes on torch's own words, such as "out of memory", where the running torch offers them.
#ifdef STABLE_TORCH_ERROR_CODE_CHECK
#define CHECK_TORCH STABLE_TORCH_ERROR_CODE_CHECK
#else
#define CHECK_TORCH TORCH_ERROR_CODE_CHECK
#endif

namespace resample_layers {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

// ---------------------------------------------------------------- the kernels of one device

#ifdef RESAMPLE_LAYERS_CUDA

constexpr const char* kKey = "CUDA";

void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next launch that succeeds would find this error
  STD_TORCH_CHECK(false, what, ": ", cudaGetErrorString(error));
}

// The device of the tensors and its current stream, for as long as this lives.
class Device {
 public:
  explicit Device(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    const int32_t index = tensor.get_device_index();
    // This library has a CUDA runtime of its own, which need not know what the
    // guard has told torch's.
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "this torch has no CUDA, but got a CUDA tensor");
    void* stream = nullptr;
    CHECK_TORCH(aoti_torch_get_current_cuda_stream(index, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  void run(const UpFirDn2dParams& params, const EpilogueParams* epilogue) const {
    if (epilogue == nullptr) {
      check_cuda(upfirdn2d_cuda(params, stream_), "upfirdn2d");
    } else {
      check_cuda(upfirdn2d_bias_act_cuda(params, *epilogue, stream_), "upfirdn2d_bias_act");
    }
  }

  void run(const KernelGradParams& params, const Tensor& like) const {
    const int64_t bytes = upfirdn2d_kernel_grad_workspace(params);
    const std::optional<Tensor> workspace = workspace_of(bytes, like);
    check_cuda(upfirdn2d_kernel_grad_cuda(params, data_of(workspace), stream_),
               "upfirdn2d_kernel_grad");
  }

  void run(const FilteredActParams& params) const {
    check_cuda(filtered_act_cuda(params, stream_), "filtered_act");
  }

  void run(const FilteredActGradParams& params, const Tensor& like) const {
    int64_t bytes = 0;
    check_cuda(filtered_act_grad_workspace(params, &bytes), "filtered_act_grad");
    const std::optional<Tensor> workspace = workspace_of(bytes, like);
    check_cuda(filtered_act_grad_cuda(params, data_of(workspace), stream_), "filtered_act_grad");
  }

  void run(const BiasActGradParams& params, const Tensor& like) const {
    const std::optional<Tensor> workspace = workspace_of(bias_act_grad_workspace(params), like);
    check_cuda(bias_act_grad_cuda(params, data_of(workspace), stream_),
               "upfirdn2d_bias_act_grad");
  }

  void zero(void* data, int64_t bytes) const {
    check_cuda(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream_), "cudaMemsetAsync");
  }

 private:
  // torch's allocator orders reuse by stream: the memory may go back before the kernel ran.
  static std::optional<Tensor> workspace_of(int64_t bytes, const Tensor& like) {
    if (bytes == 0) return std::nullopt;
    const std::array<int64_t, 1> size = {bytes};
    return torch::stable::new_empty(like, size, ScalarType::Byte);
  }
  static void* data_of(const std::optional<Tensor>& tensor) {
    return tensor ? tensor->mutable_data_ptr() : nullptr;
  }

  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

#else

constexpr const char* kKey = "CPU";

// Runs `body` in torch's threads. Torch says that a thread has failed, but not in all versions why:
// so a lack of memory is caught in the thread and thrown again here.
void parallel_for(int64_t count, int64_t grain, void (*body)(int64_t, int64_t, void*),
                  void* context) {
  struct Guarded {
    void (*body)(int64_t, int64_t, void*);
    void* context;
    std::atomic<bool> lacks_memory{false};
  } guarded{body, context};
  const auto run = [](int64_t first, int64_t last, void* pointer) {
    auto* guarded = static_cast<Guarded*>(pointer);
    try {
      guarded->body(first, last, guarded->context);
    } catch (const std::bad_alloc&) {
      guarded->lacks_memory = true;
    }
  };
  CHECK_TORCH(torch_parallel_for(0, count, grain, run, &guarded));
  if (guarded.lacks_memory) throw std::bad_alloc();
}

class Device {
 public:
  explicit Device(const Tensor&) {}

  void run(const UpFirDn2dParams& params, const EpilogueParams* epilogue) const {
    upfirdn2d_cpu(params, epilogue, parallel_for, threads());
  }

  void run(const KernelGradParams& params, const Tensor&) const {
    upfirdn2d_kernel_grad_cpu(params, parallel_for, threads());
  }

  void run(const BiasActGradParams& params, const Tensor&) const {
    bias_act_grad_cpu(params, parallel_for, threads());
  }

  void run(const FilteredActParams& params) const {
    filtered_act_cpu(params, parallel_for, threads());
  }

  void run(const FilteredActGradParams& params, const Tensor&) const {
    filtered_act_grad_cpu(params, parallel_for, threads());
  }

  void zero(void* data, int64_t bytes) const {
    std::memset(data, 0, static_cast<size_t>(bytes));
  }

 private:
  static int threads() {
    uint32_t count = 1;
    CHECK_TORCH(torch_get_num_threads(&count));
    return static_cast<int>(count);
  }
};

#endif

// ---------------------------------------------------------------- tensors

Plane4d plane_of(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.dim() == 4, name, " must have 4 dimensions [N, C, H, W], got ", t.dim());
  int64_t *size, *stride;
  CHECK_TORCH(aoti_torch_get_sizes(t.get(), &size));
  CHECK_TORCH(aoti_torch_get_strides(t.get(), &stride));
  return Plane4d{size[0],   size[1],   size[2],   size[3],
                 stride[0], stride[1], stride[2], stride[3]};
}

int64_t elements(const Plane4d& a) { return a.n * a.c * a.h * a.w; }

// Whether results of `t` are laid out as channels_last: native.is_channels_last, word for word.
bool is_channels_last(const Tensor& t, const Plane4d& a) {
  if (t.is_contiguous() || a.c == 1 || a.stride_c != 1) return false;
  const int64_t size[] = {a.w, a.h, a.n}, stride[] = {a.stride_w, a.stride_h, a.stride_n};
  int64_t least = a.c;
  for (int i = 0; i < 3; ++i) {
    if (size[i] == 1) continue;
    if (stride[i] < least) return false;
    least = stride[i] * size[i];
  }
  return true;
}

// A dense array of the given size, with the strides that torch.empty gives it.
Plane4d dense_plane(int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
  if (channels_last) return Plane4d{n, c, h, w, h * w * c, 1, w * c, c};
  return Plane4d{n, c, h, w, std::max<int64_t>(c, 1) * h * w, h * w, w, 1};
}

Dtype dtype_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    default: break;
  }
  STD_TORCH_CHECK(false, name, " must be float16, bfloat16, float32 or float64");
  return Dtype::float32;
}

const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    default: return "another type";
  }
}

int64_t element_size(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

#ifndef RESAMPLE_LAYERS_CUDA
// In torch's words, which not all versions pass on to a library.
[[noreturn]] void throw_lack_of_memory(int64_t bytes) {
  throw std::runtime_error("can't allocate memory: you tried to allocate " +
                           std::to_string(bytes) + " bytes");
}
#endif

// Torch logs twenty frames of C++ where memory is lacking, before Python can say a word. So a
// large result on the CPU is asked for quietly first; memory that nobody touches costs nothing.
void check_memory(int64_t bytes) {
#ifndef RESAMPLE_LAYERS_CUDA
  constexpr int64_t kLarge = 64 << 20;
  if (bytes < kLarge) return;
  void* volatile memory = std::malloc(size_t(bytes));  // volatile: else it is optimised away
  if (memory == nullptr) throw_lack_of_memory(bytes);
  std::free(memory);
#else
  (void)bytes;
#endif
}

Tensor empty(const Plane4d& a, const Tensor& like) {
  const int64_t size[] = {a.n, a.c, a.h, a.w};
  const int64_t stride[] = {a.stride_n, a.stride_c, a.stride_h, a.stride_w};
  int32_t dtype, device_type, device_index;
  CHECK_TORCH(aoti_torch_get_dtype(like.get(), &dtype));
  CHECK_TORCH(aoti_torch_get_device_type(like.get(), &device_type));
  CHECK_TORCH(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  const int64_t bytes = elements(a) * element_size(dtype_of(like.scalar_type(), "input"));
  check_memory(bytes);
  const AOTITorchError error =
      aoti_torch_empty_strided(4, size, stride, dtype, device_type, device_index, &handle);
#ifndef RESAMPLE_LAYERS_CUDA
  if (error != AOTI_TORCH_SUCCESS && bytes > 0) throw_lack_of_memory(bytes);  // else it overflowed
#endif
  CHECK_TORCH(error);  // for CUDA, op.py asks torch once more, and gets an error of torch's type
  return Tensor(handle);
}

void check_same_device(const Tensor& a, const Tensor& b, const char* name) {
  int32_t type_a, type_b, index_a, index_b;
  CHECK_TORCH(aoti_torch_get_device_type(a.get(), &type_a));
  CHECK_TORCH(aoti_torch_get_device_type(b.get(), &type_b));
  CHECK_TORCH(aoti_torch_get_device_index(a.get(), &index_a));
  CHECK_TORCH(aoti_torch_get_device_index(b.get(), &index_b));
  STD_TORCH_CHECK(type_a == type_b && index_a == index_b, name,
                  " must be on the device of input");
}

// "[3, 1]"
std::string shape_of(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i > 0 ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

// Contiguous, of the given type; nothing is copied where it is so already.
Tensor as_dense(const Tensor& tensor, ScalarType type) {
  Tensor result = tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  return result.is_contiguous() ? result : torch::stable::contiguous(result);
}

// ---------------------------------------------------------------- arguments

// The geometry of a call as the operators get it: with the pads after the samples too.
struct PaddedGeometry : Geometry {
  int64_t pad_x1, pad_y1;  // after the last sample              [upsampled samples]

  int64_t out_h(int64_t h) const { return size(h, up_y, down_y, pad_y0 + pad_y1, kh); }
  int64_t out_w(int64_t w) const { return size(w, up_x, down_x, pad_x0 + pad_x1, kw); }

 private:
  // Below 1 where the kernel does not fit: the quotient is rounded down.
  static int64_t size(int64_t n, int64_t up, int64_t down, int64_t pad, int64_t taps) {
    const int64_t room = n * up + pad - taps;
    return room < 0 ? -((-room - 1) / down) : room / down + 1;
  }
};

// A kernel of 2 dimensions, or the taps of both axes.
void check_ranks(const Tensor& kernel, const std::optional<Tensor>& taps_y, const char* name,
                 const char* name_y) {
  const int64_t rank = kernel.dim();
  STD_TORCH_CHECK(rank == 1 || rank == 2, name, " must have 1 or 2 dimensions, got ", rank);
  STD_TORCH_CHECK(rank == 2 || taps_y, name, " of 1 dimension must come with ", name_y,
                  ", got none");
  STD_TORCH_CHECK(rank == 1 || !taps_y, name, " of 2 dimensions must come without ", name_y,
                  ", got ", name_y, " of shape ", taps_y ? shape_of(*taps_y) : "");
  STD_TORCH_CHECK(!taps_y || taps_y->dim() == 1, name_y, " must have 1 dimension, got ",
                  taps_y ? taps_y->dim() : 0);
}

void check_factors(const Ints& factors, const char* name) {
  STD_TORCH_CHECK(factors.size() == 2, name, " must have 2 values (x, y), got ", factors.size());
  STD_TORCH_CHECK(factors[0] >= 1 && factors[1] >= 1, name, " must be >= 1 in both axes, got (",
                  factors[0], ", ", factors[1], ")");
}

// The names are those that the operator gives to the kernel and to the pads.
PaddedGeometry geometry_of(const Ints& up, const Ints& down, const Ints& pad, int64_t kh,
                           int64_t kw, const char* kernel_name = "kernel",
                           const char* pad_name = "pad") {
  check_factors(up, "up");
  check_factors(down, "down");
  STD_TORCH_CHECK(pad.size() == 4, pad_name, " must have 4 values (x0, x1, y0, y1), got ",
                  pad.size());
  STD_TORCH_CHECK(kh >= 1 && kw >= 1, kernel_name,
                  " must have at least one tap, got height x width ", kh, "x", kw);
  PaddedGeometry g{};
  g.kh = kh, g.kw = kw;
  g.up_x = up[0], g.up_y = up[1];
  g.down_x = down[0], g.down_y = down[1];
  g.pad_x0 = pad[0], g.pad_x1 = pad[1];
  g.pad_y0 = pad[2], g.pad_y1 = pad[3];
  return g;
}

// ---------------------------------------------------------------- the operators

// What follows the op; absent operands are empty.
struct Epilogue {
  std::optional<Tensor> bias, noise, noise_strength, scale;
  double slope, gain;
  std::optional<double> clamp;
};

void check_noise(const Tensor& noise, const Plane4d& out) {
  const Plane4d a = plane_of(noise, "noise");
  STD_TORCH_CHECK((a.n == 1 || a.n == out.n) && a.c == 1 && a.h == out.h && a.w == out.w,
                  "noise must be [", out.n, " or 1, 1, ", out.h, ", ", out.w, "], got [", a.n,
                  ", ", a.c, ", ", a.h, ", ", a.w, "]");
}

void check_scale(const Tensor& scale, const Plane4d& out) {
  STD_TORCH_CHECK(scale.dim() == 2 && scale.size(0) == out.n && scale.size(1) == out.c,
                  "scale must be [", out.n, ", ", out.c, "], got ", shape_of(scale));
}

// The epilogue's operands as the kernels want them, for as long as this lives.
class EpilogueOperands {
 public:
  EpilogueOperands(const Epilogue& e, const Plane4d& out, ScalarType accumulate) {
    if (e.bias) {
      STD_TORCH_CHECK(e.bias->dim() == 1 && e.bias->size(0) == out.c, "bias must be [", out.c,
                      "], got ", shape_of(*e.bias));
      bias_ = as_dense(*e.bias, accumulate);
      params_.bias = bias_->const_data_ptr();
    }
    if (e.noise) {
      check_noise(*e.noise, out);
      noise_ = as_dense(*e.noise, accumulate);
      params_.noise = noise_->const_data_ptr();
      params_.noise_stride_n = e.noise->size(0) == 1 ? 0 : out.h * out.w;
    }
    if (e.noise_strength) {
      STD_TORCH_CHECK(e.noise_strength->numel() == 1, "noise_strength must be one number, got ",
                      e.noise_strength->numel());
      strength_ = as_dense(*e.noise_strength, accumulate);
      params_.noise_strength = strength_->const_data_ptr();
    }
    if (e.scale) {
      check_scale(*e.scale, out);
      scale_ = as_dense(*e.scale, accumulate);
      params_.scale = scale_->const_data_ptr();
      params_.scale_stride_n = out.c;
    }
    params_.slope = e.slope;
    params_.gain = e.gain;
    params_.clamp = e.clamp.value_or(-1.0);
  }

  const EpilogueParams* params() const { return &params_; }

 private:
  std::optional<Tensor> bias_, noise_, strength_, scale_;
  EpilogueParams params_{};
};

// The op for operands of types that go together; `channels_last` is of the output.
Tensor resample(const Tensor& input, const Tensor& kernel, const std::optional<Tensor>& taps_y,
                const PaddedGeometry& g, bool flip, bool channels_last,
                const Epilogue* epilogue) {
  UpFirDn2dParams p{g};
  p.dtype = dtype_of(input.scalar_type(), "input");
  p.in = plane_of(input, "input");
  p.out = dense_plane(p.in.n, p.in.c, g.out_h(p.in.h), g.out_w(p.in.w), channels_last);
  // The gradient of an input without samples is empty; for users, Python asks for a sample
  STD_TORCH_CHECK(p.out.h >= 0 && p.out.w >= 0,
                  "output must be at least 0x0 (height x width), got ", p.out.h, "x", p.out.w,
                  " from input ", p.in.h, "x", p.in.w, ", kernel ", g.kh, "x", g.kw);
  Tensor output = empty(p.out, input);
  const ScalarType accumulate =
      p.dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
  const Device device(input);  // before anything is converted: on its stream
  std::optional<EpilogueOperands> operands;
  if (epilogue != nullptr) operands.emplace(*epilogue, p.out, accumulate);
  if (elements(p.out) == 0) return output;

  const Tensor taps = as_dense(kernel, accumulate);
  std::optional<Tensor> other;
  if (kernel.dim() == 2) {
    p.kernel = taps.const_data_ptr();
  } else {
    other = as_dense(*taps_y, accumulate);
    p.taps_x = taps.const_data_ptr();
    p.taps_y = other->const_data_ptr();
  }
  p.input = input.const_data_ptr();
  p.output = output.mutable_data_ptr();
  p.flip = flip;
  // Nothing but padding: a single zero takes the place of the samples that are not there
  std::optional<Tensor> zero;
  if (elements(p.in) == 0) {
    if (epilogue == nullptr) {
      device.zero(p.output, elements(p.out) * element_size(p.dtype));
      return output;
    }
    const std::array<int64_t, 1> one = {1};
    zero = torch::stable::new_zeros(input, one);
    p.input = zero->const_data_ptr();
    p.in = Plane4d{p.in.n, p.in.c, 1, 1, 0, 0, 0, 0};
  }
  device.run(p, operands ? operands->params() : nullptr);
  return output;
}

// Checks what all callers must keep to, and finds the types that go together.
Tensor checked_resample(const Tensor& input, const Tensor& kernel,
                        const std::optional<Tensor>& taps_y, const Ints& up, const Ints& down,
                        const Ints& pad, bool flip, const Epilogue* epilogue) {
  const Plane4d in = plane_of(input, "input");
  check_ranks(kernel, taps_y, "kernel", "taps_y");
  const int64_t kh = taps_y ? taps_y->size(0) : kernel.size(0);
  const int64_t kw = kernel.size(kernel.dim() - 1);
  const PaddedGeometry g = geometry_of(up, down, pad, kh, kw);
  check_same_device(input, kernel, "kernel");
  if (taps_y) check_same_device(input, *taps_y, "taps_y");

  const ScalarType type = input.scalar_type(), taps_type = kernel.scalar_type();
  const ScalarType other_type = taps_y ? taps_y->scalar_type() : taps_type;
  dtype_of(taps_type, "kernel");
  dtype_of(other_type, "taps_y");
  const bool channels_last = is_channels_last(input, in);
  const bool wide = taps_type == ScalarType::Double || other_type == ScalarType::Double;
  if (wide && type != ScalarType::Double) {
    dtype_of(type, "input");
    // Rare: a float64 kernel asks for float64 sums, and the kernels store what they sum
    const Tensor result = resample(torch::stable::to(input, ScalarType::Double), kernel, taps_y,
                                   g, flip, channels_last, epilogue);
    return torch::stable::to(result, type);
  }
  return resample(input, kernel, taps_y, g, flip, channels_last, epilogue);
}

Tensor upfirdn2d(const Tensor& input, const Tensor& kernel, std::optional<Tensor> taps_y,
                 const Ints& up, const Ints& down, const Ints& pad, bool flip) {
  return checked_resample(input, kernel, taps_y, up, down, pad, flip, nullptr);
}

Tensor upfirdn2d_bias_act(const Tensor& input, const Tensor& kernel, std::optional<Tensor> taps_y,
                          std::optional<Tensor> bias, std::optional<Tensor> noise,
                          std::optional<Tensor> noise_strength, std::optional<Tensor> scale,
                          const Ints& up, const Ints& down, const Ints& pad,
                          double negative_slope, double gain, std::optional<double> clamp) {
  if (bias) check_same_device(input, *bias, "bias");
  if (noise) check_same_device(input, *noise, "noise");
  if (noise_strength) check_same_device(input, *noise_strength, "noise_strength");
  if (scale) check_same_device(input, *scale, "scale");
  const Epilogue epilogue{bias, noise, noise_strength, scale, negative_slope, gain, clamp};
  return checked_resample(input, kernel, taps_y, up, down, pad, false, &epilogue);
}

Tensor upfirdn2d_kernel_grad(const Tensor& input, const Tensor& grad, const Ints& up,
                             const Ints& down, const Ints& pad, const Ints& kernel_size) {
  STD_TORCH_CHECK(kernel_size.size() == 2, "kernel_size must have 2 values (kw, kh), got ",
                  kernel_size.size());
  const PaddedGeometry g = geometry_of(up, down, pad, kernel_size[1], kernel_size[0]);
  check_same_device(input, grad, "grad");
  const ScalarType type = input.scalar_type(), grad_type = grad.scalar_type();
  const bool wide = type == ScalarType::Double || grad_type == ScalarType::Double;
  const ScalarType accumulate = wide ? ScalarType::Double : ScalarType::Float;
  if (type != grad_type) {
    return upfirdn2d_kernel_grad(torch::stable::to(input, accumulate),
                                 torch::stable::to(grad, accumulate), up, down, pad, kernel_size);
  }
  KernelGradParams p{g};
  p.dtype = dtype_of(type, "input");
  p.in = plane_of(input, "input");
  p.out = plane_of(grad, "grad");
  STD_TORCH_CHECK(p.out.n == p.in.n && p.out.c == p.in.c && p.out.h == g.out_h(p.in.h) &&
                      p.out.w == g.out_w(p.in.w),
                  "grad must be [", p.in.n, ", ", p.in.c, ", ", g.out_h(p.in.h), ", ",
                  g.out_w(p.in.w), "], the shape of the op's output, got [", p.out.n, ", ",
                  p.out.c, ", ", p.out.h, ", ", p.out.w, "]");
  const std::array<int64_t, 2> size = {g.kh, g.kw};
  check_memory(g.kh * g.kw * (wide ? 8 : 4));
  Tensor result = torch::stable::new_empty(input, size, accumulate);
  const Device device(input);
  p.kernel_grad = result.mutable_data_ptr();
  if (elements(p.in) == 0 || elements(p.out) == 0) {
    device.zero(p.kernel_grad, g.kh * g.kw * (wide ? 8 : 4));
    return result;
  }
  p.input = input.const_data_ptr();
  p.grad = grad.const_data_ptr();
  device.run(p, input);
  return result;
}

// One number, of the accumulate type.
const void* number_of(const std::optional<Tensor>& tensor, const char* name,
                      const Tensor& like, ScalarType accumulate, std::optional<Tensor>* kept) {
  if (!tensor) return nullptr;
  check_same_device(like, *tensor, name);
  STD_TORCH_CHECK(tensor->numel() == 1, name, " must be one number, got ", tensor->numel());
  *kept = as_dense(*tensor, accumulate);
  return (*kept)->const_data_ptr();
}

// `tensor` where it is laid out as `a`, else a copy that is.
Tensor laid_out_as(const Tensor& tensor, const Plane4d& own, const Plane4d& a) {
  const auto same = [](int64_t size, int64_t one, int64_t other) {
    return size == 1 || one == other;
  };
  if (same(a.n, own.stride_n, a.stride_n) && same(a.c, own.stride_c, a.stride_c) &&
      same(a.h, own.stride_h, a.stride_h) && same(a.w, own.stride_w, a.stride_w)) {
    return tensor;
  }
  Tensor copy = empty(a, tensor);
  torch::stable::copy_(copy, tensor);
  return copy;
}

// `tensor` laid out as `dense`, which is `output` made dense: a copy where it is not yet.
Tensor beside(const Tensor& tensor, const char* name, const Tensor& output,
              const Plane4d& dense) {
  const Plane4d own = plane_of(tensor, name);
  check_same_device(output, tensor, name);
  STD_TORCH_CHECK(own.n == dense.n && own.c == dense.c && own.h == dense.h && own.w == dense.w,
                  name, " must be [", dense.n, ", ", dense.c, ", ", dense.h, ", ", dense.w,
                  "], the shape of output, got [", own.n, ", ", own.c, ", ", own.h, ", ", own.w,
                  "]");
  return elements(dense) == 0 ? tensor : laid_out_as(tensor, own, dense);
}

// The gradient of z, or, with a tap or a scale, of what they multiply; then those of bias, noise,
// noise strength and scale, empty where they are not asked for. See BiasActGradParams.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> upfirdn2d_bias_act_grad(
    const Tensor& grad, const Tensor& output, std::optional<Tensor> scaled,
    std::optional<Tensor> tap_x, std::optional<Tensor> tap_y, std::optional<Tensor> scale,
    std::optional<Tensor> noise, std::optional<Tensor> noise_strength, bool with_bias,
    int64_t noise_samples, double negative_slope, double gain, std::optional<double> clamp) {
  const Plane4d out = plane_of(output, "output");
  STD_TORCH_CHECK(noise_samples == 0 || noise_samples == 1 || noise_samples == out.n,
                  "noise_samples must be 0, 1 or ", out.n, ", got ", noise_samples);
  BiasActGradParams p{};
  const ScalarType type = output.scalar_type();
  p.dtype = p.scaled_dtype = dtype_of(type, "output");
  const ScalarType accumulate =
      p.dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(grad.scalar_type() == type, "grad must have output's dtype, ", name_of(type),
                  ", got ", name_of(grad.scalar_type()));
  if (scaled) {
    const ScalarType own = scaled->scalar_type();
    const bool may_be_wide = type == ScalarType::Half;
    STD_TORCH_CHECK(own == type || (may_be_wide && own == ScalarType::Float),
                    "scaled must have output's dtype, ", name_of(type),
                    may_be_wide ? ", or float32" : "", ", got ", name_of(own));
    p.scaled_dtype = dtype_of(own, "scaled");
  }
  p.n = out.n, p.c = out.c, p.pixels = out.h * out.w;
  p.slope = negative_slope, p.gain = gain, p.clamp = clamp.value_or(-1.0);
  const bool last = is_channels_last(output, out);
  p.channels_last = last || p.pixels == 1;  // of one pixel, both are the same
  const Plane4d dense = dense_plane(out.n, out.c, out.h, out.w, last);

  const Device device(output);  // before anything is converted or copied: on its stream
  const Tensor dense_grad = beside(grad, "grad", output, dense);
  const Tensor dense_output = beside(output, "output", output, dense);
  std::optional<Tensor> dense_scaled;
  if (scaled) dense_scaled = beside(*scaled, "scaled", output, dense);
  const auto sums = [&](bool wanted, std::initializer_list<int64_t> shape, void** data) {
    const std::vector<int64_t> size = wanted ? std::vector<int64_t>(shape) : Ints{0};
    Tensor result = torch::stable::new_empty(output, size, accumulate);
    if (wanted && result.numel() > 0) *data = result.mutable_data_ptr();
    return result;
  };
  Tensor result = empty(dense, output);
  Tensor bias_grad = sums(with_bias, {out.c}, &p.bias_grad);
  Tensor noise_grad = sums(noise_samples > 0, {noise_samples, 1, out.h, out.w}, &p.noise_grad);
  Tensor strength_grad = sums(noise.has_value(), {1}, &p.strength_grad);
  Tensor scale_grad = sums(scaled.has_value(), {out.n, out.c}, &p.scale_grad);
  if (elements(out) == 0) {
    const int64_t size = element_size(accumulate == ScalarType::Double ? Dtype::float64
                                                                       : Dtype::float32);
    for (const Tensor& empty_sum : {bias_grad, noise_grad, strength_grad, scale_grad}) {
      if (empty_sum.numel() > 0) {
        device.zero(empty_sum.mutable_data_ptr(), empty_sum.numel() * size);
      }
    }
    return {result, bias_grad, noise_grad, strength_grad, scale_grad};
  }

  std::optional<Tensor> kept_x, kept_y, kept_strength, kept_noise, kept_scale;
  p.tap_x = number_of(tap_x, "tap_x", output, accumulate, &kept_x);
  p.tap_y = number_of(tap_y, "tap_y", output, accumulate, &kept_y);
  p.noise_strength =
      number_of(noise_strength, "noise_strength", output, accumulate, &kept_strength);
  if (noise) {
    check_same_device(output, *noise, "noise");
    check_noise(*noise, out);
    kept_noise = as_dense(*noise, accumulate);
    p.noise = kept_noise->const_data_ptr();
    p.noise_stride_n = noise->size(0) == 1 ? 0 : p.pixels;
  }
  p.noise_samples = noise_samples;
  if (scale) {
    check_same_device(output, *scale, "scale");
    check_scale(*scale, out);
    kept_scale = as_dense(*scale, accumulate);
    p.scale = kept_scale->const_data_ptr();
  }
  p.grad = dense_grad.const_data_ptr();
  p.output = dense_output.const_data_ptr();
  if (dense_scaled) p.scaled = dense_scaled->const_data_ptr();
  p.result = result.mutable_data_ptr();
  device.run(p, output);
  return {result, bias_grad, noise_grad, strength_grad, scale_grad};
}

// ---------------------------------------------------------------- filtered activations

// The operands of filtered_act, and of its gradient, as they come. `wide`: whether the input or
// a kernel asks for float64 throughout; _accumulate_dtype of filtered_act.py has the same rule.
struct FilteredAct {
  const Tensor &input, &up_kernel, &down_kernel;
  const std::optional<Tensor>&bias, &alpha, &beta, &up_taps_y, &down_taps_y;
  const Ints &up, &down, &up_pad, &down_pad;
  bool replicate;
  int64_t activation;
  double slope, gain;
  std::optional<double> clamp;

  bool wide() const {
    const auto is_wide = [](const Tensor& t) { return t.scalar_type() == ScalarType::Double; };
    return is_wide(input) || is_wide(up_kernel) || is_wide(down_kernel) ||
           (up_taps_y && is_wide(*up_taps_y)) || (down_taps_y && is_wide(*down_taps_y));
  }
};

// Whether a nonlinearity has alpha and beta.
struct Number {
  typedef float R;
};
struct AskForParameters {
  bool* answer;
  template <class F>
  void run() const { *answer = F::kParameters; }
};
bool has_parameters(int64_t activation) {
  bool answer = false;
  with_nonlinearity<Number>(Nonlinearity(activation), AskForParameters{&answer});
  return answer;
}

// The operands as the kernels want them, for as long as this lives.
class FilteredOperands {
 public:
  // Fills all of `p` but the data of input and output, and the sizes of the output.
  FilteredOperands(const FilteredAct& call, FilteredActParams& p) {
    const Tensor& input = call.input;
    p.dtype = dtype_of(input.scalar_type(), "input");
    accumulate_ = p.dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
    p.in = plane_of(input, "input");
    p.up_filter = filter(input, call.up_kernel, call.up_taps_y, "up_kernel", "up_taps_y");
    p.down_filter = filter(input, call.down_kernel, call.down_taps_y, "down_kernel",
                           "down_taps_y");
    const Ints one = {1, 1};
    first_ = geometry_of(call.up, one, call.up_pad, p.up_filter.kh, p.up_filter.kw, "up_kernel",
                         "up_pad");
    second_ = geometry_of(one, call.down, call.down_pad, p.down_filter.kh, p.down_filter.kw,
                          "down_kernel", "down_pad");
    p.up_x = first_.up_x, p.up_y = first_.up_y;
    p.down_x = second_.down_x, p.down_y = second_.down_y;
    p.up_pad_x0 = first_.pad_x0, p.up_pad_y0 = first_.pad_y0;
    p.down_pad_x0 = second_.pad_x0, p.down_pad_y0 = second_.pad_y0;
    p.mid_h = first_.out_h(p.in.h), p.mid_w = first_.out_w(p.in.w);
    STD_TORCH_CHECK(p.mid_h >= 1 && p.mid_w >= 1 && out_h(p) >= 1 && out_w(p) >= 1,
                    "the upsampled signal and the output must be at least 1x1 (height x width), "
                    "got ", p.mid_h, "x", p.mid_w, " and ", out_h(p), "x", out_w(p),
                    " from input ", p.in.h, "x", p.in.w);
    STD_TORCH_CHECK(!call.replicate || (p.in.h >= 1 && p.in.w >= 1),
                    "input must have samples where replicate continues them, got ", p.in.h, "x",
                    p.in.w);
    STD_TORCH_CHECK(0 <= call.activation && call.activation < kNonlinearities,
                    "activation must be in [0, ", kNonlinearities, "), got ", call.activation);
    STD_TORCH_CHECK(!has_parameters(call.activation) || (call.alpha && call.beta),
                    "activation ", call.activation, " must come with alpha and beta, got ",
                    call.alpha ? "alpha without beta" : call.beta ? "beta without alpha" : "none");
    STD_TORCH_CHECK(std::isfinite(call.gain) && call.gain > 0,
                    "gain must be finite and > 0, got ", call.gain);
    STD_TORCH_CHECK(!call.clamp || (std::isfinite(*call.clamp) && *call.clamp > 0),
                    "clamp must be finite and > 0, got ", call.clamp.value_or(0));
    p.bias = parameter(input, call.bias, p.in.c, "bias");
    p.alpha = parameter(input, call.alpha, p.in.c, "alpha");
    p.beta = parameter(input, call.beta, p.in.c, "beta");
    p.replicate = call.replicate;
    p.activation = int32_t(call.activation);
    p.slope = call.slope;
    p.gain = call.gain;
    p.clamp = call.clamp.value_or(-1.0);
  }

  int64_t out_h(const FilteredActParams& p) const { return second_.out_h(p.mid_h); }
  int64_t out_w(const FilteredActParams& p) const { return second_.out_w(p.mid_w); }
  ScalarType accumulate() const { return accumulate_; }

 private:
  const void* keep(const Tensor& tensor) {
    kept_.push_back(as_dense(tensor, accumulate_));
    return kept_.back().const_data_ptr();
  }

  Filter filter(const Tensor& input, const Tensor& kernel, const std::optional<Tensor>& taps_y,
                const char* name, const char* name_y) {
    check_ranks(kernel, taps_y, name, name_y);
    check_same_device(input, kernel, name);
    dtype_of(kernel.scalar_type(), name);
    Filter f{};
    f.kw = kernel.size(kernel.dim() - 1);
    f.kh = taps_y ? taps_y->size(0) : kernel.size(0);
    if (!taps_y) {
      f.kernel = keep(kernel);
      return f;
    }
    check_same_device(input, *taps_y, name_y);
    dtype_of(taps_y->scalar_type(), name_y);
    f.taps_x = keep(kernel);
    f.taps_y = keep(*taps_y);
    return f;
  }

  const void* parameter(const Tensor& input, const std::optional<Tensor>& values,
                        int64_t channels, const char* name) {
    if (!values) return nullptr;
    check_same_device(input, *values, name);
    dtype_of(values->scalar_type(), name);
    STD_TORCH_CHECK(values->dim() == 1 && values->size(0) == channels, name, " must be [",
                    channels, "], got ", shape_of(*values));
    return keep(*values);
  }

  PaddedGeometry first_, second_;
  ScalarType accumulate_;
  std::vector<Tensor> kept_;
};

Tensor filtered_act(const Tensor& input, std::optional<Tensor> bias, std::optional<Tensor> alpha,
                    std::optional<Tensor> beta, const Tensor& up_kernel,
                    std::optional<Tensor> up_taps_y, const Tensor& down_kernel,
                    std::optional<Tensor> down_taps_y, const Ints& up, const Ints& down,
                    const Ints& up_pad, const Ints& down_pad, bool replicate, int64_t activation,
                    double negative_slope, double gain, std::optional<double> clamp) {
  const FilteredAct call{input,  up_kernel, down_kernel, bias,     alpha,     beta,
                         up_taps_y, down_taps_y, up,     down,     up_pad,    down_pad,
                         replicate, activation,  negative_slope, gain, clamp};
  const ScalarType type = input.scalar_type();
  if (type != ScalarType::Double && call.wide()) {
    dtype_of(type, "input");
    // Rare, as in upfirdn2d
    const Tensor result = filtered_act(
        torch::stable::to(input, ScalarType::Double), bias, alpha, beta, up_kernel, up_taps_y,
        down_kernel, down_taps_y, up, down, up_pad, down_pad, replicate, activation,
        negative_slope, gain, clamp);
    return torch::stable::to(result, type);
  }
  const Device device(input);  // before anything is converted: on its stream
  FilteredActParams p{};
  FilteredOperands operands(call, p);
  p.out = dense_plane(p.in.n, p.in.c, operands.out_h(p), operands.out_w(p),
                      is_channels_last(input, p.in));
  Tensor output = empty(p.out, input);
  if (elements(p.out) == 0) return output;
  p.input = input.const_data_ptr();
  p.output = output.mutable_data_ptr();
  // Nothing but padding: m is zero, as it is for one sample of zero and one tap of zero. The
  // taps of up_kernel meet no sample, and one that is NaN changes nothing.
  std::optional<Tensor> zero;
  if (elements(p.in) == 0) {
    const std::array<int64_t, 1> one = {1};
    zero = torch::stable::new_zeros(input, one, operands.accumulate());
    p.input = zero->const_data_ptr();
    p.in = Plane4d{p.in.n, p.in.c, 1, 1, 0, 0, 0, 0};
    p.bias = nullptr;
    p.up_filter = Filter{zero->const_data_ptr(), nullptr, nullptr, 1, 1};
    p.up_pad_x0 = p.up_pad_y0 = 0;
  }
  device.run(p);
  return output;
}

using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

FourTensors filtered_act_grad(
    const Tensor& grad, const Tensor& input, std::optional<Tensor> bias,
    std::optional<Tensor> alpha, std::optional<Tensor> beta, const Tensor& up_kernel,
    std::optional<Tensor> up_taps_y, const Tensor& down_kernel, std::optional<Tensor> down_taps_y,
    const Ints& up, const Ints& down, const Ints& up_pad, const Ints& down_pad, bool replicate,
    int64_t activation, double negative_slope, double gain, std::optional<double> clamp,
    const std::vector<bool>& needs) {
  const FilteredAct call{input,  up_kernel, down_kernel, bias,     alpha,     beta,
                         up_taps_y, down_taps_y, up,     down,     up_pad,    down_pad,
                         replicate, activation,  negative_slope, gain, clamp};
  STD_TORCH_CHECK(needs.size() == 3, "needs must have 3 values, got ", needs.size());
  check_same_device(input, grad, "grad");
  const ScalarType type = input.scalar_type();
  dtype_of(type, "input");
  STD_TORCH_CHECK(grad.scalar_type() == type, "grad must be ", name_of(type),
                  ", the dtype of input, got ", name_of(grad.scalar_type()));
  if (type != ScalarType::Double && call.wide()) {
    FourTensors results = filtered_act_grad(
        torch::stable::to(grad, ScalarType::Double), torch::stable::to(input, ScalarType::Double),
        bias, alpha, beta, up_kernel, up_taps_y, down_kernel, down_taps_y, up, down, up_pad,
        down_pad, replicate, activation, negative_slope, gain, clamp, needs);
    std::get<0>(results) = torch::stable::to(std::get<0>(results), type);
    return results;
  }
  const Device device(input);
  FilteredActGradParams p{};
  FilteredOperands operands(call, p);
  p.grad_plane = plane_of(grad, "grad");
  const int64_t out_h = operands.out_h(p), out_w = operands.out_w(p);
  STD_TORCH_CHECK(p.grad_plane.n == p.in.n && p.grad_plane.c == p.in.c &&
                      p.grad_plane.h == out_h && p.grad_plane.w == out_w,
                  "grad must be [", p.in.n, ", ", p.in.c, ", ", out_h, ", ", out_w,
                  "], the shape of the op's output, got [", p.grad_plane.n, ", ",
                  p.grad_plane.c, ", ", p.grad_plane.h, ", ", p.grad_plane.w, "]");
  p.out = dense_plane(p.in.n, p.in.c, p.in.h, p.in.w, is_channels_last(input, p.in));
  Tensor grad_input = empty(p.out, input);
  const bool has[3] = {call.bias.has_value(), has_parameters(activation),
                       has_parameters(activation)};
  std::vector<Tensor> sums;
  void* data[3];
  for (int i = 0; i < 3; ++i) {
    STD_TORCH_CHECK(!needs[i] || has[i], "needs must not ask for the gradient of an operand "
                    "that is absent, got true at ", i);
    const std::array<int64_t, 1> size = {needs[i] ? p.in.c : 0};
    sums.push_back(torch::stable::new_empty(input, size, operands.accumulate()));
    data[i] = needs[i] ? sums[i].mutable_data_ptr() : nullptr;
  }
  p.grad_bias = data[0], p.grad_alpha = data[1], p.grad_beta = data[2];
  p.grad = grad.const_data_ptr();
  p.input = input.const_data_ptr();
  p.output = grad_input.mutable_data_ptr();
  if (elements(p.in) > 0) {
    device.run(p, input);
  } else {  // m is zero, and all sums are
    for (int i = 0; i < 3; ++i) {
      if (data[i] != nullptr && p.in.c > 0) {
        device.zero(data[i], p.in.c * (p.dtype == Dtype::float64 ? 8 : 4));
      }
    }
  }
  return {grad_input, sums[0], sums[1], sums[2]};
}

// The operators of this library. A new one is one more row.
struct Operator {
  const char* name;
  // As the function reads its arguments. extension.py holds it against the schema that
  // Python has defined: a boxed function of another schema would crash.
  const char* schema;
  void (*boxed)(StableIValue* stack, uint64_t arguments, uint64_t results);
};

constexpr Operator kOperators[] = {
    {"upfirdn2d",
     "(Tensor input, Tensor kernel, Tensor? taps_y, int[2] up, int[2] down, SymInt[4] pad, "
     "bool flip) -> Tensor",
     TORCH_BOX(&upfirdn2d)},
    {"upfirdn2d_bias_act",
     "(Tensor input, Tensor kernel, Tensor? taps_y, Tensor? bias, Tensor? noise, "
     "Tensor? noise_strength, Tensor? scale, int[2] up, int[2] down, SymInt[4] pad, "
     "float negative_slope, float gain, float? clamp) -> Tensor",
     TORCH_BOX(&upfirdn2d_bias_act)},
    {"upfirdn2d_kernel_grad",
     "(Tensor input, Tensor grad, int[2] up, int[2] down, SymInt[4] pad, SymInt[2] kernel_size) "
     "-> Tensor",
     TORCH_BOX(&upfirdn2d_kernel_grad)},
    {"upfirdn2d_bias_act_grad",
     "(Tensor grad, Tensor output, Tensor? scaled, Tensor? tap_x, Tensor? tap_y, Tensor? scale, "
     "Tensor? noise, Tensor? noise_strength, bool with_bias, SymInt noise_samples, "
     "float negative_slope, float gain, float? clamp) "
     "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
     TORCH_BOX(&upfirdn2d_bias_act_grad)},
    {"filtered_act",
     "(Tensor input, Tensor? bias, Tensor? alpha, Tensor? beta, Tensor up_kernel, "
     "Tensor? up_taps_y, Tensor down_kernel, Tensor? down_taps_y, int[2] up, int[2] down, "
     "SymInt[4] up_pad, SymInt[4] down_pad, bool replicate, int activation, "
     "float negative_slope, float gain, float? clamp) -> Tensor",
     TORCH_BOX(&filtered_act)},
    {"filtered_act_grad",
     "(Tensor grad, Tensor input, Tensor? bias, Tensor? alpha, Tensor? beta, Tensor up_kernel, "
     "Tensor? up_taps_y, Tensor down_kernel, Tensor? down_taps_y, int[2] up, int[2] down, "
     "SymInt[4] up_pad, SymInt[4] down_pad, bool replicate, int activation, "
     "float negative_slope, float gain, float? clamp, bool[3] needs) "
     "-> (Tensor, Tensor, Tensor, Tensor)",
     TORCH_BOX(&filtered_act_grad)},
};

std::string describe() {
  std::string text;
  const auto line = [&text](const char* key, const std::string& value) {
    text += key + std::string("=") + value + "\n";
  };
  line("version", STRING(RESAMPLE_LAYERS_VERSION));
  line("key", kKey);
  line("target", std::to_string(TORCH_FEATURE_VERSION >> 56) + "." +
                     std::to_string((TORCH_FEATURE_VERSION >> 48) & 0xff));
  line("headers", STRING(TORCH_VERSION_MAJOR) "." STRING(TORCH_VERSION_MINOR) "." STRING(
                      TORCH_VERSION_PATCH));
#ifdef __VERSION__
  line("compiler", __VERSION__);
#endif
#ifdef RESAMPLE_LAYERS_CUDA
  line("cuda", std::to_string(CUDART_VERSION / 1000) + "." +
                   std::to_string(CUDART_VERSION % 1000 / 10));
  line("architectures", STRING(RESAMPLE_LAYERS_ARCHITECTURES));
#endif
  for (const Operator& op : kOperators) line(op.name, op.schema);
  return text;
}

void register_kernels() {
  // Held for as long as the process lives, like every operator of torch's own.
  TorchLibraryHandle library = nullptr;
  CHECK_TORCH(
      aoti_torch_library_init_impl("resample_layers", kKey, "upfirdn2d_ops.cpp", 0, &library));
  for (const Operator& op : kOperators) {
    for (const std::string& name : {std::string(op.name), "_" + std::string(op.name)}) {
      CHECK_TORCH(torch_library_impl(library, name.c_str(), op.boxed, TORCH_ABI_VERSION));
    }
  }
}

}  // namespace
}  // namespace resample_layers

// ---------------------------------------------------------------- what extension.py calls

// Lines "key=value": what this file is, what it was compiled for.
EXPORT const char* resample_layers_describe() {
  static const std::string text = resample_layers::describe();
  return text.c_str();
}

// Adds the kernels to the operators, which Python has defined. It does so once: an import that was
// stopped right after this call is repeated, and calls it again. Null, or what went wrong.
EXPORT const char* resample_layers_register() {
  static bool is_registered = false;
  static std::string problem;
  try {
    if (!is_registered) resample_layers::register_kernels();
    is_registered = true;
    return nullptr;
  } catch (const std::exception& error) {
    problem = error.what();
  }
  return problem.c_str();
}

#ifndef RESAMPLE_LAYERS_CUDA
// See cpu/upfirdn2d_cpu.h.
EXPORT const char* resample_layers_cpu_capability() { return resample_layers::cpu_capability(); }
#endif
