// What bn.cu needs of CUDA, on a CPU: every thread is a fiber, and a fiber runs until it waits.
//
// The emulation is stricter than hardware. Threads of a block must meet at the same barrier, in the same line, or the
// launch fails; shared memory starts out as NaN; a block must not read the shared memory of one that has ended.
// The order in which fibers run is the caller's choice.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

// The sanitizers' instrumentation must leave the emulation itself alone.
#define EMULATION __attribute__((no_sanitize("thread"), noinline))

namespace emulator {

struct Index {
  unsigned x, y, z;
};

// Filled in by the fiber that runs.
extern Index thread_index, block_index, block_shape, grid_shape;

enum Order : std::uint64_t { FORWARD, REVERSE, RANDOM };

// All fields 64 bits wide, so that the caller needs to know no padding.
struct Launch {
  std::uint64_t blocks, threads, cluster, shared_bytes, order, seed;
};

unsigned char* shared_memory();
void wait_for_block(int line);
void wait_for_cluster(int line);
unsigned cluster_rank();
unsigned cluster_size();
double cluster_read(const double* local, unsigned rank);
void check_vector(const void* address);
double shuffle_down(int line, unsigned mask, double value, int distance);

// Runs `body(context)` once per thread; 0, or 1 with the reason in emulator_error().
int run(const Launch& launch, void (*body)(void*), void* context);

template <class... Arguments>
struct Call {
  void (*kernel)(Arguments...);
  void** values;

  template <std::size_t... I>
  EMULATION void unpack(std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<Arguments>*>(values[I])...);
  }

  EMULATION static void body(void* self) { static_cast<Call*>(self)->unpack(std::index_sequence_for<Arguments...>()); }
};

template <class... Arguments>
EMULATION int launch(void (*kernel)(Arguments...), const Launch& shape, void** values) {
  Call<Arguments...> call = {kernel, values};
  return run(shape, &Call<Arguments...>::body, &call);
}

template <class... Arguments>
std::uint64_t arguments(void (*)(Arguments...)) {
  return sizeof...(Arguments);
}

}  // namespace emulator

#define EXPORT(kernel)                                                                     \
  extern "C" int launch_##kernel(const emulator::Launch* shape, void** values) {           \
    return emulator::launch(kernel, *shape, values);                                       \
  }                                                                                        \
  extern "C" std::uint64_t arguments_##kernel() { return emulator::arguments(kernel); }

#define __global__
#define __device__
// Truly, as on a GPU: what a function writes through the place of its result would escape the instrumentation.
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_shape
#define gridDim emulator::grid_shape

#define __syncthreads() emulator::wait_for_block(__LINE__)
#define __shfl_down_sync(mask, value, distance) emulator::shuffle_down(__LINE__, mask, value, distance)
#define cluster_barrier() emulator::wait_for_cluster(__LINE__)

using emulator::cluster_rank;
using emulator::cluster_read;
using emulator::cluster_size;
using emulator::shared_memory;

// Of no alignment that the compiler could rely on: a copy from or to a place where hardware would trap is reported.
struct uint4 {
  unsigned x, y, z, w;

  uint4() = default;
  uint4(unsigned x_, unsigned y_, unsigned z_, unsigned w_) : x(x_), y(y_), z(z_), w(w_) {}
  uint4(const uint4& other) : x(other.x), y(other.y), z(other.z), w(other.w) { emulator::check_vector(&other); }
  uint4& operator=(const uint4& other) {
    emulator::check_vector(this);
    emulator::check_vector(&other);
    x = other.x, y = other.y, z = other.z, w = other.w;
    return *this;
  }
};

inline void store_vector(uint4* target, const uint4& value) { *target = value; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// A builtin rather than memcpy, which instrumentation would not see.
#define bits_as(To, from) __builtin_bit_cast(To, from)

inline float __uint_as_float(unsigned bits) { return bits_as(float, bits); }
inline unsigned __float_as_uint(float value) { return bits_as(unsigned, value); }
inline int __popc(unsigned mask) { return __builtin_popcount(mask); }
inline double __hiloint2double(int high, int low) {
  return bits_as(double, static_cast<std::uint64_t>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low));
}
inline int __double2hiint(double value) { return static_cast<int>(bits_as(std::uint64_t, value) >> 32); }
inline int __double2loint(double value) { return static_cast<int>(bits_as(std::uint64_t, value)); }

// IEEE 754 binary16, as the conversion instructions do it.
inline float widen_half(unsigned short bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
  if (exponent == 31) return bits_as(float, sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return bits_as(float, sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -small : small;
}

inline unsigned short narrow_half(float value) {
  const unsigned bits = bits_as(unsigned, value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<unsigned short>(0x7fffu);  // what cvt gives for every NaN
  if (size >= 0x47800000u) return static_cast<unsigned short>(sign | 0x7c00u);
  if (size < 0x38800000u) {  // Subnormal: in units of 2**-24, which nearbyint rounds to even.
    return static_cast<unsigned short>(sign | static_cast<unsigned>(std::nearbyint(bits_as(float, size) * 0x1p24f)));
  }
  const unsigned rebased = size - 0x38000000u;
  return static_cast<unsigned short>(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
}
