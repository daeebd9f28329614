// SPDX-License-Identifier: BSD-3-Clause
//
// CUDA's words for a host compiler: enough to run the kernels of csrc/cuda/
// unchanged, one block after another. A block's threads are fibres, switched only
// at barriers, in an order that the test chooses. Shared memory is allocated anew
// for each block, exactly as large as the launch asked for (so that the address
// sanitizer sees the end of it) and filled with NaN. Wide accesses check their
// alignment, which a GPU insists on and a CPU does not.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)

#define BARRIER(number) ::cuda_host::barrier(number)
#define BARRIER_ANY(number, flag) ::cuda_host::barrier_any(number, flag)
#define SHARED_MEMORY(type, name) \
  type* const name = static_cast<type*>(::cuda_host::shared_memory())

struct Dim3 {
  unsigned x, y, z;
};
struct uint2 {
  uint32_t x, y;
};
struct uint4 {
  uint32_t x, y, z, w;
};

struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};

extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {

enum class Order { ascending, descending, random };

struct Options {
  Order order = Order::ascending;
  int removed_barrier = -1;  // barriers of this number do nothing
  unsigned seed = 0;
};
extern Options options;
extern std::vector<int64_t> barriers_met;  // by number

// Run body once per thread of every block of the grid; `only`: of these blocks, if it is not empty.
void launch(unsigned grid, unsigned block, size_t shared, const std::function<void()>& body,
            const std::vector<unsigned>& only = {});

void barrier(int number);
bool barrier_any(int number, bool flag);
void* shared_memory();
[[noreturn]] void fail(const char* message);

inline void check_alignment(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) fail("misaligned wide access");
}

template <class V>
V load(const void* p) {
  check_alignment(p, sizeof(V));
  V value;
  std::memcpy(&value, p, sizeof(V));
  return value;
}
template <class V>
void store(void* p, V value) {
  check_alignment(p, sizeof(V));
  std::memcpy(p, &value, sizeof(V));
}

}  // namespace cuda_host

using std::max;
using std::min;

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

namespace resample_layers {

inline uint4 load_16_bytes(const void* p) { return cuda_host::load<uint4>(p); }
inline uint2 load_8_bytes(const void* p) { return cuda_host::load<uint2>(p); }
inline uint32_t load_4_bytes(const void* p) { return cuda_host::load<uint32_t>(p); }
inline uint16_t load_2_bytes(const void* p) { return cuda_host::load<uint16_t>(p); }
inline void store_16_bytes(void* p, uint4 v) { cuda_host::store(p, v); }
inline void store_8_bytes(void* p, uint2 v) { cuda_host::store(p, v); }
inline void store_4_bytes(void* p, uint32_t v) { cuda_host::store(p, v); }
inline void store_2_bytes(void* p, uint16_t v) { cuda_host::store(p, v); }

inline void store_shared(float* p, float2 v) { cuda_host::store(p, v); }
inline void store_shared(float* p, float4 v) { cuda_host::store(p, v); }
inline float2 load_shared_2(const float* p) { return cuda_host::load<float2>(p); }
inline float4 load_shared_4(const float* p) { return cuda_host::load<float4>(p); }

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline double words_to_double(uint32_t low, uint32_t high) {
  const uint64_t bits = static_cast<uint64_t>(high) << 32 | low;
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}
inline uint32_t low_word(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, 8);
  return static_cast<uint32_t>(bits);
}
inline uint32_t high_word(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, 8);
  return static_cast<uint32_t>(bits >> 32);
}

inline void sine_and_cosine(float a, float* sine, float* cosine) {
  *sine = std::sin(a), *cosine = std::cos(a);
}
inline void sine_and_cosine(double a, double* sine, double* cosine) {
  *sine = std::sin(a), *cosine = std::cos(a);
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

// Round to nearest, ties to even.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 2^-1 aligns the last bit of a half with the last of a float.
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float low_half_to_float(uint32_t word) {
  return half_to_float(static_cast<uint16_t>(word & 0xffffu));
}
inline float high_half_to_float(uint32_t word) {
  return half_to_float(static_cast<uint16_t>(word >> 16));
}
inline uint32_t floats_to_half2(float low, float high) {
  return static_cast<uint32_t>(float_to_half(low)) |
         static_cast<uint32_t>(float_to_half(high)) << 16;
}
inline uint32_t floats_to_bfloat162(float low, float high) {
  return static_cast<uint32_t>(float_to_bfloat16(low)) |
         static_cast<uint32_t>(float_to_bfloat16(high)) << 16;
}

}  // namespace resample_layers
