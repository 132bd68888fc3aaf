// Batch normalization on a GPU. One translation unit without headers, compiled by NVRTC once per storage type:
// BN_DTYPE is the ONNX TensorProto.DataType of x, y, dy and dx. Everything per channel may have another type.
//
// A tensor is [outer, channels, inner]. Channels-first means inner > 1: a channel is `outer` rows of `inner`
// adjacent values. Channels-last means inner == 1: a channel is a column.
//
// Numerics. Values are summed in chunks of 16 or 32 in float32 (float64 stays float64), shifted by the chunk's
// first value and squared about the chunk's own mean; chunks are merged in float64 by Chan, Golub and LeVeque
// (The American Statistician 37(3), 1983, eq. 2.1). Every merge has a fixed place in a fixed tree and nothing is
// atomic, so the same tensor gives the same bits each time. Compile with fused multiply-add contraction off: where
// an fma is meant it is written.
//
// Memory. Loads are 16 bytes wide from 16-byte boundaries, whatever the address of the tensor and the length of a
// row: a row is covered by aligned vectors, and lanes that belong to its neighbours are masked.

typedef unsigned u32;
typedef unsigned long long u64;
typedef long long i64;

#define FLOAT32 1
#define FLOAT16 10
#define FLOAT64 11
#define BFLOAT16 16

#if BN_DTYPE == FLOAT64
typedef double Stored;
typedef double Real;
#elif BN_DTYPE == FLOAT32
typedef float Stored;
typedef float Real;
#elif BN_DTYPE == FLOAT16 || BN_DTYPE == BFLOAT16
typedef unsigned short Stored;
typedef float Real;
#else
#error "BN_DTYPE must be 1, 10, 11 or 16"
#endif

constexpr int LANES = 16 / sizeof(Stored);  // values in a 16-byte vector
constexpr int DEPTH = 4;                    // vectors in flight per thread and tensor
constexpr int CHUNK = LANES * DEPTH;
constexpr int COLUMN = 16;                  // rows in flight per thread where a thread owns columns
constexpr int PAIRS = COLUMN / 2;           // likewise with two tensors
constexpr int WARP = 32;
constexpr int MAX_THREADS = 256;
constexpr int RESIDENT = 2;                 // blocks per multiprocessor that registers must leave room for: 128 each
constexpr int COLUMN_THREADS = 128;         // likewise where a thread keeps the sums of several columns: 168 each
constexpr int COLUMN_RESIDENT = 3;

// --- what only hardware can do; a host build brings its own ---------------------------------------------------

#ifdef __CUDACC__

__device__ __forceinline__ float widen_half(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ unsigned short narrow_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// Spelled out: the compiler splits the assignment of a uint4 that was put together from parts into four stores.
__device__ __forceinline__ void store_vector(uint4* target, const uint4& value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(target)), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w));
}

__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<unsigned char*>(memory);
}

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ u32 cluster_size() {
  u32 size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// What block `rank` of this cluster has at the place that `local` is in this block's shared memory.
__device__ __forceinline__ double cluster_read(const double* local, u32 rank) {
  u32 remote;
  double value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(remote)
               : "r"(static_cast<u32>(__cvta_generic_to_shared(local))), "r"(rank));
  asm volatile("ld.shared::cluster.f64 %0, [%1];" : "=d"(value) : "r"(remote) : "memory");
  return value;
}

#else  // No clusters: every block is one of its own.

__device__ __forceinline__ u32 cluster_rank() { return 0; }
__device__ __forceinline__ u32 cluster_size() { return 1; }
__device__ __forceinline__ void cluster_barrier() { __syncthreads(); }
__device__ __forceinline__ double cluster_read(const double* local, u32) { return *local; }

#endif
#endif

// --- storage types ----------------------------------------------------------------------------------------------

__device__ __forceinline__ float widen_bfloat(unsigned short bits) {
  return __uint_as_float(static_cast<u32>(bits) << 16);
}

// Round to nearest, ties to even. In integers, since not every architecture has the instruction.
__device__ __forceinline__ unsigned short narrow_bfloat(float value) {
  const u32 bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<unsigned short>(bits >> 16 | 0x40u);
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ Real widen(Stored value) {
#if BN_DTYPE == FLOAT16
  return widen_half(value);
#elif BN_DTYPE == BFLOAT16
  return widen_bfloat(value);
#else
  return value;
#endif
}

__device__ __forceinline__ Stored narrow(Real value) {
#if BN_DTYPE == FLOAT16
  return narrow_half(value);
#elif BN_DTYPE == BFLOAT16
  return narrow_bfloat(value);
#else
  return value;
#endif
}

// Narrowing a double by way of float would round twice: float is first rounded to odd, which keeps the sticky bit.
__device__ __forceinline__ float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  u32 bits = __float_as_uint(nearest);
  if (back == value || value != value || (bits & 0x7fffffffu) >= 0x7f800000u || (bits & 1u)) return nearest;
  const bool away = (value > 0) == (back > value);
  return __uint_as_float(away ? bits - 1u : bits + 1u);
}

// A value of any of the four types as it lies in memory. Taken apart from its conversion, so that several loads are
// under way before the first is waited for.
struct Scalar {
  u32 low, high;
};

__device__ __forceinline__ Scalar load_scalar(const void* data, i64 dtype, i64 index) {
  if (dtype == FLOAT64) {
    const u32* word = static_cast<const u32*>(data) + 2 * index;
    return {word[0], word[1]};
  }
  if (dtype == FLOAT32) return {static_cast<const u32*>(data)[index], 0};
  return {static_cast<const unsigned short*>(data)[index], 0};
}

__device__ __forceinline__ double value_of(const Scalar& bits, i64 dtype) {
  switch (dtype) {
    case FLOAT32: return __uint_as_float(bits.low);
    case FLOAT16: return widen_half(static_cast<unsigned short>(bits.low));
    case BFLOAT16: return widen_bfloat(static_cast<unsigned short>(bits.low));
    default: return __hiloint2double(static_cast<int>(bits.high), static_cast<int>(bits.low));
  }
}

__device__ __forceinline__ void store_scalar(void* data, i64 dtype, i64 index, double value) {
  switch (dtype) {
    case FLOAT32: static_cast<float*>(data)[index] = static_cast<float>(value); return;
    case FLOAT16: static_cast<unsigned short*>(data)[index] = narrow_half(round_to_odd(value)); return;
    case BFLOAT16: static_cast<unsigned short*>(data)[index] = narrow_bfloat(round_to_odd(value)); return;
    default: static_cast<double*>(data)[index] = value;
  }
}

// --- 16-byte vectors --------------------------------------------------------------------------------------------

// `i` is a constant wherever these are called, once loops are unrolled; a runtime index would go through memory.
__device__ __forceinline__ u32 word(const uint4& vector, int i) {
  return i == 0 ? vector.x : i == 1 ? vector.y : i == 2 ? vector.z : vector.w;
}

__device__ __forceinline__ Real lane(const uint4& vector, int i) {
#if BN_DTYPE == FLOAT64
  return __hiloint2double(static_cast<int>(word(vector, 2 * i + 1)), static_cast<int>(word(vector, 2 * i)));
#elif BN_DTYPE == FLOAT32
  return __uint_as_float(word(vector, i));
#else
  return widen(static_cast<unsigned short>(word(vector, i / 2) >> (i % 2 * 16)));
#endif
}

// The scalar counterpart, for columns that no vector fits.
__device__ __forceinline__ Real lane(Stored value, int) { return widen(value); }

__device__ __forceinline__ u32 word_of(const Stored (&value)[LANES], int i) {
#if BN_DTYPE == FLOAT64
  return static_cast<u32>(i % 2 ? __double2hiint(value[i / 2]) : __double2loint(value[i / 2]));
#elif BN_DTYPE == FLOAT32
  return __float_as_uint(value[i]);
#else
  return static_cast<u32>(value[2 * i]) | static_cast<u32>(value[2 * i + 1]) << 16;
#endif
}

__device__ __forceinline__ uint4 vector_of(const Stored (&value)[LANES]) {
  return make_uint4(word_of(value, 0), word_of(value, 1), word_of(value, 2), word_of(value, 3));
}

// How many values lie between the 16-byte boundary at or below a tensor and its first value.
__device__ __forceinline__ u32 misalignment(const Stored* data) {
  return static_cast<u32>(reinterpret_cast<u64>(data) % 16 / sizeof(Stored));
}

// The vector that starts at value `first` of a tensor (before its beginning, if it is the first of a misaligned
// one), of which the lanes [low, high) are meant.
struct Span {
  i64 first;
  int low, high;
};

__device__ __forceinline__ bool inside(const Span& span, i64 size) {
  return span.first >= 0 && span.first + LANES <= size;
}

__device__ __forceinline__ uint4 load_vector(const Stored* data, i64 first) {
  return *reinterpret_cast<const uint4*>(data + first);
}

__device__ __forceinline__ uint4 load_lanes(const Stored* data, const Span& span) {
  Stored value[LANES];
#pragma unroll
  for (int i = 0; i < LANES; ++i) {
    value[i] = i >= span.low && i < span.high ? data[span.first + i] : Stored(0);
  }
  return vector_of(value);
}

// Loads DEPTH vectors, all of them before any is used.
__device__ __forceinline__ void load_spans(uint4 (&raw)[DEPTH], const Stored* data, i64 size, u32 shift,
                                           const Span (&span)[DEPTH]) {
  bool wide = misalignment(data) == shift;
#pragma unroll
  for (int k = 0; k < DEPTH; ++k) wide = wide && inside(span[k], size);
  if (wide) {
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) raw[k] = load_vector(data, span[k].first);
  } else {
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) raw[k] = load_lanes(data, span[k]);
  }
}

__device__ __forceinline__ void store_span(Stored* data, u32 shift, const Span& span, const Stored (&value)[LANES]) {
  if (span.low == 0 && span.high == LANES && misalignment(data) == shift) {
    store_vector(reinterpret_cast<uint4*>(data + span.first), vector_of(value));
  } else {
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
      if (i >= span.low && i < span.high) data[span.first + i] = value[i];
    }
  }
}

// --- sums -------------------------------------------------------------------------------------------------------

// Pairwise: the rounding error grows with log N. Recursion, since a halving loop would not stay in registers.
template <int N>
__device__ __forceinline__ Real sum(const Real* value) {
  if constexpr (N == 1) {
    return value[0];
  } else {
    return sum<N / 2>(value) + sum<N - N / 2>(value + N / 2);
  }
}

__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double square_root(double a) { return sqrt(a); }
__device__ __forceinline__ float square_root(float a) { return sqrtf(a); }

// To the last bit or the one before it. Division in float64 costs several times as much.
__device__ __forceinline__ double reciprocal(double count) {
  double inverse = static_cast<double>(1.0f / static_cast<float>(count));
  inverse = fma(inverse, fma(-count, inverse, 1.0), inverse);
  return fma(inverse, fma(-count, inverse, 1.0), inverse);
}

template <class T>
__device__ __forceinline__ bool is_finite(T value) {
  return value - value == 0;
}

// How many values, their mean, and the sum of their squared deviations from it.
struct Moments {
  double count, mean, m2;
};

__device__ __forceinline__ Moments merge(const Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  const double weight = b.count * reciprocal(count);
  const double delta = b.mean - a.mean;
  // Infinite means merge into the infinity or the NaN that a plain sum gives.
  const double mean = is_finite(delta) ? fma(delta, weight, a.mean) : a.mean + b.mean;
  const Moments both = {count, mean, a.m2 + b.m2 + delta * delta * (a.count * weight)};
  return b.count == 0 ? a : a.count == 0 ? b : both;
}

// Of N values those whose bit in `mask` is set; WHOLE says that all are.
template <int N, bool WHOLE>
__device__ __forceinline__ Moments moments(Real (&value)[N], u32 mask) {
  Real first = value[0];
  if (!WHOLE) {
#pragma unroll
    for (int i = N - 1; i >= 0; --i) first = mask >> i & 1u ? value[i] : first;
  }
  if (!is_finite(first)) first = 0;
  const int count = WHOLE ? N : __popc(mask);
#pragma unroll
  for (int i = 0; i < N; ++i) value[i] = WHOLE || (mask >> i & 1u) ? value[i] - first : Real(0);
  const Real total = sum<N>(value);
  const Real offset = total / static_cast<Real>(count > 0 ? count : 1);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Real deviation = WHOLE || (mask >> i & 1u) ? value[i] - offset : Real(0);
    value[i] = deviation * deviation;
  }
  const double mean = fma(static_cast<double>(total), reciprocal(count), static_cast<double>(first));
  return {static_cast<double>(count), mean, static_cast<double>(sum<N>(value))};
}

template <int N>
__device__ __forceinline__ Moments moments(Real (&value)[N], u32 mask) {
  constexpr u32 all = N == 32 ? 0xffffffffu : (1u << N % 32) - 1u;
  return mask == all ? moments<N, true>(value, mask) : moments<N, false>(value, mask);
}

// The sums that the gradients need: of dy, and of dy*(x - mean).
struct Slopes {
  double total, product;
};

__device__ __forceinline__ Slopes merge(const Slopes& a, const Slopes& b) {
  return {a.total + b.total, a.product + b.product};
}

template <int N>
__device__ __forceinline__ Slopes slopes(Real (&dy)[N], Real (&x)[N], Real mean, u32 mask) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool mine = mask >> i & 1u;
    dy[i] = mine ? dy[i] : Real(0);
    x[i] = mine ? dy[i] * (x[i] - mean) : Real(0);
  }
  return {static_cast<double>(sum<N>(dy)), static_cast<double>(sum<N>(x))};
}

__device__ __forceinline__ Moments below(const Moments& own, int distance) {
  return {__shfl_down_sync(0xffffffffu, own.count, distance), __shfl_down_sync(0xffffffffu, own.mean, distance),
          __shfl_down_sync(0xffffffffu, own.m2, distance)};
}

__device__ __forceinline__ Slopes below(const Slopes& own, int distance) {
  return {__shfl_down_sync(0xffffffffu, own.total, distance), __shfl_down_sync(0xffffffffu, own.product, distance)};
}

// Lane 0 receives what all lanes of its warp hold.
template <class Sums>
__device__ __forceinline__ Sums merge_warp(Sums own) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) own = merge(own, below(own, distance));
  return own;
}

// Thread 0 receives what all threads of its block hold. `scratch` has a place for each warp.
template <class Sums>
__device__ __forceinline__ Sums merge_block(Sums own, Sums* scratch) {
  const u32 lane_index = threadIdx.x % WARP;
  const u32 warp = threadIdx.x / WARP;
  own = merge_warp(own);
  if (lane_index == 0) scratch[warp] = own;
  __syncthreads();
  if (warp == 0) {
    own = lane_index < blockDim.x / WARP ? scratch[lane_index] : Sums{};
    own = merge_warp(own);
  }
  return own;
}

// One warp merges the partial sums of its channel, which lie side by side; lane 0 receives the result.
template <class Sums>
__device__ __forceinline__ Sums merge_partial(const Sums* partial, i64 channel, i64 splits) {
  Sums own = {};
  for (i64 split = threadIdx.x % WARP; split < splits; split += WARP) {
    own = merge(own, partial[channel * splits + split]);
  }
  return merge_warp(own);
}

// --- per channel ------------------------------------------------------------------------------------------------

// Forward, y = (x - mean)*gain + shift. Backward, dx = (dy - shift - (x - mean)*slope)*gain.
// `mean` is rounded to Real; `shift` makes up for what that cut off.
struct alignas(16) Affine {
  Real mean, gain, shift, slope;
};

__device__ __forceinline__ Affine forward_affine(double mean, double var, double scale, double bias, double epsilon) {
  const Real center = static_cast<Real>(mean);
  const double gain = scale / sqrt(var + epsilon);
  return {center, static_cast<Real>(gain), static_cast<Real>(bias - (mean - center) * gain), Real(0)};
}

__device__ __forceinline__ Real normalized(Real x, const Affine& affine) {
  return multiply_add(x - affine.mean, affine.gain, affine.shift);
}

__device__ __forceinline__ Real input_gradient(Real dy, Real x, const Affine& affine) {
  return multiply_add(affine.mean - x, affine.slope, dy - affine.shift) * affine.gain;
}

// What is given per channel. Scale and bias have one type, the running (or population) mean and variance another.
struct Parameters {
  const void* scale;
  const void* bias;
  i64 dtype;
  const void* mean;
  const void* var;
  i64 statistics_dtype;
};

// The same for one channel, on its way from memory.
struct Given {
  Scalar scale_bits, bias_bits, mean_bits, var_bits;
  i64 dtype, statistics_dtype;

  __device__ __forceinline__ Given(const Parameters& all, i64 channel)
      : scale_bits(load_scalar(all.scale, all.dtype, channel)),
        bias_bits(load_scalar(all.bias, all.dtype, channel)),
        mean_bits(load_scalar(all.mean, all.statistics_dtype, channel)),
        var_bits(load_scalar(all.var, all.statistics_dtype, channel)),
        dtype(all.dtype),
        statistics_dtype(all.statistics_dtype) {}

  __device__ __forceinline__ double scale() const { return value_of(scale_bits, dtype); }
  __device__ __forceinline__ double bias() const { return value_of(bias_bits, dtype); }
  __device__ __forceinline__ double mean() const { return value_of(mean_bits, statistics_dtype); }
  __device__ __forceinline__ double var() const { return value_of(var_bits, statistics_dtype); }
};

// What training writes per channel besides y.
struct Record {
  double* mean;
  double* var;
  void* running_mean;
  void* running_var;
};

// `correction` is N/(N - 1) where the running variance is to be unbiased, else 1.
__device__ __forceinline__ Affine finish_forward(const Moments& batch, i64 channel, const Given& given,
                                                 const Record& record, bool writes, double epsilon, double momentum,
                                                 double correction) {
  const double var = batch.m2 / batch.count;
  if (writes) {
    const double fresh = 1.0 - momentum;
    record.mean[channel] = batch.mean;
    record.var[channel] = var;
    store_scalar(record.running_mean, given.statistics_dtype, channel, momentum * given.mean() + fresh * batch.mean);
    store_scalar(record.running_var, given.statistics_dtype, channel,
                 momentum * given.var() + fresh * (var * correction));
  }
  return forward_affine(batch.mean, var, given.scale(), given.bias(), epsilon);
}

// `count` is the number of values in a channel; 0 says that mean and var are constants.
__device__ __forceinline__ Affine finish_backward(const Slopes& sums, i64 channel, double count, const Given& given,
                                                  void* dscale, void* dbias, bool writes, double epsilon) {
  const double mean = given.mean();
  const Real center = static_cast<Real>(mean);
  const double rest = mean - center;
  const double inverse = 1.0 / sqrt(given.var() + epsilon);
  const double product = (sums.product - rest * sums.total) * inverse;
  if (writes) {
    store_scalar(dscale, given.dtype, channel, product);
    store_scalar(dbias, given.dtype, channel, sums.total);
  }
  const Real gain = static_cast<Real>(given.scale() * inverse);
  if (count == 0) return {Real(0), gain, Real(0), Real(0)};
  const double slope = product * inverse / count;
  return {center, gain, static_cast<Real>(sums.total / count - rest * slope), static_cast<Real>(slope)};
}

// --- channels-first geometry ------------------------------------------------------------------------------------

// Division of numbers below 2**31 by one that is known beforehand: a product and a shift (Granlund and Montgomery,
// PLDI 1994). `magic` comes from the host: the factor, with the shift in its upper half.
struct Divisor {
  u32 divisor, factor, shift;

  __device__ __forceinline__ Divisor(i64 divisor_, i64 magic)
      : divisor(static_cast<u32>(divisor_)),
        factor(static_cast<u32>(magic)),
        shift(static_cast<u32>(static_cast<u64>(magic) >> 32)) {}

  __device__ __forceinline__ u32 divide(u32 dividend, u32& remainder) const {
    const u32 quotient = static_cast<u32>(static_cast<u64>(dividend) * factor >> shift);
    remainder = dividend - quotient * divisor;
    return quotient;
  }
};

// A channel as a sequence of slots: each row has as many as the most vectors that a row of its length can touch.
struct Rows {
  i64 size, channels;
  u32 inner, shift, total;
  Divisor slots;  // per row
  bool whole;     // every slot is a vector of its row alone

  __device__ __forceinline__ Rows(const Stored* x, i64 outer, i64 channels_, i64 inner_, i64 slots_, i64 magic)
      : size(outer * channels_ * inner_),
        channels(channels_),
        inner(static_cast<u32>(inner_)),
        shift(misalignment(x)),
        total(static_cast<u32>(outer * slots_)),
        slots(slots_, magic),
        whole(shift == 0 && inner % LANES == 0) {}

  // A slot that its row does not need repeats the row's last vector with no lanes, so that every slot can be loaded.
  __device__ __forceinline__ Span span(i64 channel, u32 slot, bool wanted) const {
    u32 step;
    const u32 row = slots.divide(slot, step);
    const i64 begin = (row * channels + channel) * inner;
    if (whole) return {begin + step * LANES, 0, wanted ? LANES : 0};
    const i64 end = begin + inner;
    const i64 vector = (begin + shift) / LANES + step;
    const i64 last = (end - 1 + shift) / LANES;
    const i64 first = (vector < last ? vector : last) * LANES - shift;
    const int low = static_cast<int>(begin > first ? begin - first : 0);
    const int high = static_cast<int>(end < first + LANES ? end - first : LANES);
    return {first, low, wanted && vector <= last ? high : low};
  }

  // The DEPTH slots from `base` that this thread loads, of those before `end`.
  __device__ __forceinline__ u32 spans(Span (&span_)[DEPTH], i64 channel, u32 base, u32 end) const {
    u32 mask = 0;
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      const u32 slot = base + k * blockDim.x + threadIdx.x;
      span_[k] = span(channel, slot < end ? slot : end - 1, slot < end);
      mask |= ((1u << span_[k].high) - (1u << span_[k].low)) << k * LANES;
    }
    return mask;
  }
};

__device__ __forceinline__ void unpack(Real (&value)[CHUNK], const uint4 (&raw)[DEPTH]) {
#pragma unroll
  for (int i = 0; i < CHUNK; ++i) value[i] = lane(raw[i / LANES], i % LANES);
}

// This block's share of `total` things of which each of `parts` blocks takes an equal run.
template <class Index>
struct Share {
  Index begin, end;

  __device__ __forceinline__ Share(Index total, Index parts, Index part) {
    const Index each = (total + parts - 1) / parts;
    begin = part * each < total ? part * each : total;
    end = begin + each < total ? begin + each : total;
  }
};

// --- kernels: channels-first statistics and sums -----------------------------------------------------------------

// Block = one of `splits` shares of one channel. partial: [channels, splits].
extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    statistics_channels_first(const Stored* __restrict__ x, i64 outer, i64 channels, i64 inner, i64 slots, i64 magic,
                              i64 splits, Moments* __restrict__ partial) {
  const Rows rows(x, outer, channels, inner, slots, magic);
  const i64 channel = blockIdx.x % channels;
  const i64 split = blockIdx.x / channels;
  const Share<u32> share(rows.total, static_cast<u32>(splits), static_cast<u32>(split));
  Moments own = {};
  for (u32 base = share.begin; base < share.end; base += DEPTH * blockDim.x) {
    Span span[DEPTH];
    uint4 raw[DEPTH];
    Real value[CHUNK];
    const u32 mask = rows.spans(span, channel, base, share.end);
    load_spans(raw, x, rows.size, rows.shift, span);
    unpack(value, raw);
    own = merge(own, moments(value, mask));
  }
  own = merge_block(own, reinterpret_cast<Moments*>(shared_memory()));
  if (threadIdx.x == 0) partial[channel * splits + split] = own;
}

// As above for the sums of the gradients.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    slopes_channels_first(const Stored* __restrict__ dy, const Stored* __restrict__ x, i64 outer, i64 channels,
                          i64 inner, i64 slots, i64 magic, i64 splits, const void* __restrict__ mean, i64 dtype,
                          Slopes* __restrict__ partial) {
  const Rows rows(x, outer, channels, inner, slots, magic);
  const i64 channel = blockIdx.x % channels;
  const i64 split = blockIdx.x / channels;
  const Share<u32> share(rows.total, static_cast<u32>(splits), static_cast<u32>(split));
  const Real center = static_cast<Real>(value_of(load_scalar(mean, dtype, channel), dtype));
  Slopes own = {};
  for (u32 base = share.begin; base < share.end; base += DEPTH * blockDim.x) {
    Span span[DEPTH];
    uint4 raw_dy[DEPTH], raw_x[DEPTH];
    Real value_dy[CHUNK], value_x[CHUNK];
    const u32 mask = rows.spans(span, channel, base, share.end);
    load_spans(raw_dy, dy, rows.size, rows.shift, span);
    load_spans(raw_x, x, rows.size, rows.shift, span);
    unpack(value_dy, raw_dy);
    unpack(value_x, raw_x);
    own = merge(own, slopes(value_dy, value_x, center, mask));
  }
  own = merge_block(own, reinterpret_cast<Slopes*>(shared_memory()));
  if (threadIdx.x == 0) partial[channel * splits + split] = own;
}

// --- kernels: channels-last statistics and sums ------------------------------------------------------------------

// A block of threads on a [rows, channels] tensor: `width` groups of W adjacent channels side by side, and as many
// rows at a time as the block has room for. Blocks tile the groups first, then the rows in `bands`.
template <int W>
struct Columns {
  i64 channels, first;  // first: this thread's first channel
  u32 width, height, group, row;
  i64 band;
  bool works;

  __device__ __forceinline__ Columns(i64 channels_, i64 width_)
      : channels(channels_), width(static_cast<u32>(width_)), height(blockDim.x / width), group(threadIdx.x % width),
        row(threadIdx.x / width) {
    const i64 groups = channels / W;
    const i64 tiles = (groups + width - 1) / width;
    const i64 at = blockIdx.x % tiles * width + group;
    band = blockIdx.x / tiles;
    first = at * W;
    works = row < height && at < groups;
  }
};

template <int W>
struct Raw {
  typedef uint4 type;
};
template <>
struct Raw<1> {
  typedef Stored type;
};

template <int W, int N>
__device__ __forceinline__ u32 load_column(typename Raw<W>::type (&raw)[N], const Stored* data, const Columns<W>& at,
                                           i64 base, i64 end) {
  u32 mask = 0;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const i64 row = base + static_cast<i64>(k) * at.height + at.row;
    mask |= row < end ? 1u << k : 0u;
    // A row past the end repeats the last one and is masked.
    raw[k] = *reinterpret_cast<const typename Raw<W>::type*>(data + (row < end ? row : end - 1) * at.channels + at.first);
  }
  return mask;
}

// Merges the rows of a block: at the end the threads of row 0 hold the sums of the block for their W channels.
// `scratch` has a place for each thread of the upper half and each of its channels.
template <int W, class Sums>
__device__ __forceinline__ void merge_rows(Sums (&own)[W], const Columns<W>& at, Sums* scratch) {
  for (u32 active = at.height; active > 1; active = (active + 1) / 2) {
    const u32 half = (active + 1) / 2;
    const u32 stride = (active - half) * at.width;
    if (at.works && at.row >= half && at.row < active) {
#pragma unroll
      for (int i = 0; i < W; ++i) scratch[i * stride + (at.row - half) * at.width + at.group] = own[i];
    }
    __syncthreads();
    if (at.works && at.row + half < active) {
#pragma unroll
      for (int i = 0; i < W; ++i) own[i] = merge(own[i], scratch[i * stride + at.row * at.width + at.group]);
    }
    __syncthreads();
  }
}

template <int W>
__device__ __forceinline__ void statistics_columns(const Stored* x, i64 rows, i64 channels, i64 width, i64 splits,
                                                   Moments* partial) {
  const Columns<W> at(channels, width);
  const Share<i64> share(rows, splits, at.band);
  Moments own[W] = {};
  double count = 0;  // the same for all W; one register pair instead of W
  if (at.works) {
    for (i64 base = share.begin; base < share.end; base += COLUMN * at.height) {
      typename Raw<W>::type raw[COLUMN];
      const u32 mask = load_column<W>(raw, x, at, base, share.end);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        Real value[COLUMN];
#pragma unroll
        for (int k = 0; k < COLUMN; ++k) value[k] = lane(raw[k], i);
        own[i] = merge({count, own[i].mean, own[i].m2}, moments(value, mask));
      }
      count += __popc(mask);
    }
  }
#pragma unroll
  for (int i = 0; i < W; ++i) own[i].count = count;
  merge_rows<W>(own, at, reinterpret_cast<Moments*>(shared_memory()));
  if (at.works && at.row == 0) {
#pragma unroll
    for (int i = 0; i < W; ++i) partial[(at.first + i) * splits + at.band] = own[i];
  }
}

template <int W>
__device__ __forceinline__ void slopes_columns(const Stored* dy, const Stored* x, i64 rows, i64 channels, i64 width,
                                               i64 splits, const void* mean, i64 dtype, Slopes* partial) {
  const Columns<W> at(channels, width);
  const Share<i64> share(rows, splits, at.band);
  Slopes own[W] = {};
  if (at.works) {
    Scalar bits[W];
    Real center[W];
#pragma unroll
    for (int i = 0; i < W; ++i) bits[i] = load_scalar(mean, dtype, at.first + i);
#pragma unroll
    for (int i = 0; i < W; ++i) center[i] = static_cast<Real>(value_of(bits[i], dtype));
    for (i64 base = share.begin; base < share.end; base += PAIRS * at.height) {
      typename Raw<W>::type raw_dy[PAIRS], raw_x[PAIRS];
      load_column<W>(raw_dy, dy, at, base, share.end);
      const u32 mask = load_column<W>(raw_x, x, at, base, share.end);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        Real value_dy[PAIRS], value_x[PAIRS];
#pragma unroll
        for (int k = 0; k < PAIRS; ++k) {
          value_dy[k] = lane(raw_dy[k], i);
          value_x[k] = lane(raw_x[k], i);
        }
        own[i] = merge(own[i], slopes(value_dy, value_x, center[i], mask));
      }
    }
  }
  merge_rows<W>(own, at, reinterpret_cast<Slopes*>(shared_memory()));
  if (at.works && at.row == 0) {
#pragma unroll
    for (int i = 0; i < W; ++i) partial[(at.first + i) * splits + at.band] = own[i];
  }
}

// For channels that fill whole vectors of an aligned tensor. partial: [channels, splits].
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, COLUMN_RESIDENT)
    statistics_channels_last(const Stored* __restrict__ x, i64 rows, i64 channels, i64 width, i64 splits,
                             Moments* __restrict__ partial) {
  statistics_columns<LANES>(x, rows, channels, width, splits, partial);
}

// For any other number of channels, and any alignment.
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, COLUMN_RESIDENT)
    statistics_channels_last_any(const Stored* __restrict__ x, i64 rows, i64 channels, i64 width, i64 splits,
                                 Moments* __restrict__ partial) {
  statistics_columns<1>(x, rows, channels, width, splits, partial);
}

extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, COLUMN_RESIDENT)
    slopes_channels_last(const Stored* __restrict__ dy, const Stored* __restrict__ x, i64 rows, i64 channels,
                         i64 width, i64 splits, const void* __restrict__ mean, i64 dtype,
                         Slopes* __restrict__ partial) {
  slopes_columns<LANES>(dy, x, rows, channels, width, splits, mean, dtype, partial);
}

extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, COLUMN_RESIDENT)
    slopes_channels_last_any(const Stored* __restrict__ dy, const Stored* __restrict__ x, i64 rows, i64 channels,
                             i64 width, i64 splits, const void* __restrict__ mean, i64 dtype,
                             Slopes* __restrict__ partial) {
  slopes_columns<1>(dy, x, rows, channels, width, splits, mean, dtype, partial);
}

// --- kernels: per channel, one warp each -------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    finalize_forward(const Moments* __restrict__ partial, i64 channels, i64 splits, const void* scale, const void* bias,
                     i64 parameter_dtype, const void* running_mean, const void* running_var, i64 running_dtype,
                     double* mean, double* var, void* new_mean, void* new_var, Affine* affine, double epsilon,
                     double momentum, double correction) {
  const i64 channel = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (channel >= channels) return;
  const Given given({scale, bias, parameter_dtype, running_mean, running_var, running_dtype}, channel);
  const Moments batch = merge_partial(partial, channel, splits);
  if (threadIdx.x % WARP != 0) return;
  affine[channel] = finish_forward(batch, channel, given, {mean, var, new_mean, new_var}, true, epsilon, momentum,
                                   correction);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    finalize_backward(const Slopes* __restrict__ partial, i64 channels, i64 splits, i64 count, const void* scale,
                      i64 scale_dtype, const void* mean, const void* var, i64 dtype, void* dscale, void* dbias,
                      Affine* affine, double epsilon) {
  const i64 channel = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (channel >= channels) return;
  const Given given({scale, scale, scale_dtype, mean, var, dtype}, channel);  // the bias is not needed
  const Slopes sums = merge_partial(partial, channel, splits);
  if (threadIdx.x % WARP != 0) return;
  affine[channel] = finish_backward(sums, channel, static_cast<double>(count), given, dscale, dbias, true, epsilon);
}

// --- kernels: elementwise ----------------------------------------------------------------------------------------

// Where a kernel takes its affine maps from: what finalize wrote ...
struct Finished {
  const Affine* affine;
  __device__ __forceinline__ Affine operator()(i64 channel) const { return affine[channel]; }
};

// ... or the statistics themselves, which saves inference a launch. In Real but for the two sums where float32
// would lose digits.
struct Population {
  Parameters all;
  double epsilon;

  __device__ __forceinline__ Affine operator()(i64 channel) const {
    const Given given(all, channel);
    const double mean = given.mean();
    const Real center = static_cast<Real>(mean);
    const Real gain = static_cast<Real>(given.scale()) / square_root(static_cast<Real>(given.var() + epsilon));
    return {center, gain, static_cast<Real>(given.bias() - (mean - center) * gain), Real(0)};
  }
};

__device__ __forceinline__ u64 divide(u64 dividend, u32 divisor, u32& remainder) {
  if (dividend >> 32 == 0) {  // several times as fast
    const u32 small = static_cast<u32>(dividend);
    remainder = small % divisor;
    return small / divisor;
  }
  remainder = static_cast<u32>(dividend % divisor);
  return dividend / divisor;
}

// Rows shorter than a vector, channels that fill none: neighbours take neighbouring values.
template <bool BACKWARD, class Source>
__device__ __forceinline__ void map_values(const Stored* dy, const Stored* x, Stored* out, u32 channels, u32 inner,
                                           i64 size, const Source& source) {
  const i64 begin = static_cast<i64>(blockIdx.x) * blockDim.x * CHUNK;
#pragma unroll 1
  for (int k = 0; k < CHUNK; ++k) {
    const i64 i = begin + static_cast<i64>(k) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    u32 position, channel;
    divide(divide(static_cast<u64>(i), inner, position), channels, channel);
    const Affine affine = source(channel);
    out[i] = narrow(BACKWARD ? input_gradient(widen(dy[i]), widen(x[i]), affine) : normalized(widen(x[i]), affine));
  }
}

// Rows of a vector or more: vectors from 16-byte boundaries, each in one row or across the border of two. The block
// first sets out the maps of all its rows in shared memory, while its vectors are on their way.
template <bool BACKWARD, class Source>
__device__ __forceinline__ void map_vectors(const Stored* dy, const Stored* x, Stored* out, u32 channels,
                                            const Divisor& inner, i64 size, const Source& source) {
  Affine* table = reinterpret_cast<Affine*>(shared_memory());
  const u32 shift = misalignment(x);
  const u32 reach = blockDim.x * CHUNK;
  const i64 start = static_cast<i64>(blockIdx.x) * reach - shift;
  const i64 begin = start > 0 ? start : 0;
  const i64 end = start + reach < size ? start + reach : size;
  Span span[DEPTH];
  uint4 raw_dy[DEPTH], raw_x[DEPTH];
#pragma unroll
  for (int k = 0; k < DEPTH; ++k) {
    const i64 first = start + (k * blockDim.x + threadIdx.x) * LANES;
    const i64 left = size - first;
    span[k] = {first, first < 0 ? static_cast<int>(-first) : 0,
               left >= LANES ? LANES : left > 0 ? static_cast<int>(left) : 0};
  }
  load_spans(raw_x, x, size, shift, span);
  if (BACKWARD) load_spans(raw_dy, dy, size, shift, span);

  u32 offset, channel;  // of the value `begin` in its row
  divide(divide(static_cast<u64>(begin), inner.divisor, offset), channels, channel);
  const u32 rows = (offset + static_cast<u32>(end - begin) - 1) / inner.divisor + 1;
  for (u32 row = threadIdx.x; row < rows; row += blockDim.x) table[row] = source((channel + row) % channels);
  __syncthreads();

#pragma unroll
  for (int k = 0; k < DEPTH; ++k) {
    if (span[k].low >= span[k].high) continue;
    u32 position;
    const u32 row = inner.divide(offset + static_cast<u32>(span[k].first + span[k].low - begin), position);
    // Lane `border` is the first of the next row; `position` is that of lane `low`.
    const u32 rest = inner.divisor - position;
    const int border = rest < LANES ? span[k].low + static_cast<int>(rest) : 2 * LANES;
    const Affine here = table[row];
    const Affine next = border < span[k].high ? table[row + 1] : here;
    Stored value[LANES];
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
      const Affine affine = {i < border ? here.mean : next.mean, i < border ? here.gain : next.gain,
                             i < border ? here.shift : next.shift, i < border ? here.slope : next.slope};
      value[i] = narrow(BACKWARD ? input_gradient(lane(raw_dy[k], i), lane(raw_x[k], i), affine)
                                 : normalized(lane(raw_x[k], i), affine));
    }
    store_span(out, shift, span[k], value);
  }
}

template <bool BACKWARD, class Source>
__device__ __forceinline__ void map_tensor(const Stored* dy, const Stored* x, Stored* out, i64 channels, i64 inner,
                                           i64 magic, i64 size, const Source& source) {
  if (inner < LANES) {
    map_values<BACKWARD>(dy, x, out, static_cast<u32>(channels), static_cast<u32>(inner), size, source);
  } else {
    map_vectors<BACKWARD>(dy, x, out, static_cast<u32>(channels), Divisor(inner, magic), size, source);
  }
}

// Channels-last with channels that fill whole vectors of aligned tensors: a thread keeps its channels' maps. They are
// worked out once for the block, the i-th channels of all groups side by side.
template <bool BACKWARD, class Source>
__device__ __forceinline__ void map_columns(const Stored* dy, const Stored* x, Stored* out, i64 rows, i64 channels,
                                            i64 width, i64 bands, const Source& source) {
  const Columns<LANES> at(channels, width);
  Affine* table = reinterpret_cast<Affine*>(shared_memory());
  const i64 first = at.first - at.group * LANES;  // the block's first channel
  for (u32 i = threadIdx.x; i < at.width * LANES; i += blockDim.x) {
    if (first + i < channels) table[i % LANES * at.width + i / LANES] = source(first + i);
  }
  __syncthreads();
  if (!at.works) return;
  const Share<i64> share(rows, bands, at.band);
  Affine affine[LANES];
#pragma unroll
  for (int i = 0; i < LANES; ++i) affine[i] = table[i * at.width + at.group];
  for (i64 base = share.begin; base < share.end; base += DEPTH * at.height) {
    uint4 raw_dy[DEPTH], raw_x[DEPTH];
    const u32 mask = load_column<LANES>(raw_x, x, at, base, share.end);
    if (BACKWARD) load_column<LANES>(raw_dy, dy, at, base, share.end);
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      if (!(mask >> k & 1u)) continue;
      Stored value[LANES];
#pragma unroll
      for (int i = 0; i < LANES; ++i) {
        value[i] = narrow(BACKWARD ? input_gradient(lane(raw_dy[k], i), lane(raw_x[k], i), affine[i])
                                   : normalized(lane(raw_x[k], i), affine[i]));
      }
      const i64 row = base + static_cast<i64>(k) * at.height + at.row;
      store_vector(reinterpret_cast<uint4*>(out + row * at.channels + at.first), vector_of(value));
    }
  }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    infer(const Stored* __restrict__ x, Stored* __restrict__ y, i64 channels, i64 inner, i64 magic, i64 size,
          const void* scale, const void* bias, i64 parameter_dtype, const void* mean, const void* var, i64 dtype, double epsilon) {
  map_tensor<false>(nullptr, x, y, channels, inner, magic, size,
                    Population{{scale, bias, parameter_dtype, mean, var, dtype}, epsilon});
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    infer_channels_last(const Stored* __restrict__ x, Stored* __restrict__ y, i64 rows, i64 channels, i64 width,
                        i64 bands, const void* scale, const void* bias, i64 parameter_dtype, const void* mean,
                        const void* var, i64 dtype, double epsilon) {
  map_columns<false>(nullptr, x, y, rows, channels, width, bands,
                     Population{{scale, bias, parameter_dtype, mean, var, dtype}, epsilon});
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    normalize(const Stored* __restrict__ x, Stored* __restrict__ y, i64 channels, i64 inner, i64 magic, i64 size,
              const Affine* __restrict__ affine) {
  map_tensor<false>(nullptr, x, y, channels, inner, magic, size, Finished{affine});
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    normalize_channels_last(const Stored* __restrict__ x, Stored* __restrict__ y, i64 rows, i64 channels, i64 width,
                            i64 bands, const Affine* __restrict__ affine) {
  map_columns<false>(nullptr, x, y, rows, channels, width, bands, Finished{affine});
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    differentiate(const Stored* __restrict__ dy, const Stored* __restrict__ x, Stored* __restrict__ dx, i64 channels,
                  i64 inner, i64 magic, i64 size, const Affine* __restrict__ affine) {
  map_tensor<true>(dy, x, dx, channels, inner, magic, size, Finished{affine});
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    differentiate_channels_last(const Stored* __restrict__ dy, const Stored* __restrict__ x, Stored* __restrict__ dx,
                                i64 rows, i64 channels, i64 width, i64 bands, const Affine* __restrict__ affine) {
  map_columns<true>(dy, x, dx, rows, channels, width, bands, Finished{affine});
}

// --- kernels: a channel at a time, read once ---------------------------------------------------------------------

// The blocks of a cluster keep one channel in their shared memory: this header, then the vectors of each tensor.
template <class Sums>
struct alignas(16) Board {
  Sums warps[WARP];
  Sums block;
  Affine affine;
};

// Every block of the cluster receives, in thread 0, what all of them hold in theirs. Each block must pass a cluster
// barrier before it ends: the others read its shared memory.
template <class Sums>
__device__ __forceinline__ Sums merge_cluster(Sums own, Sums& shared) {
  constexpr int DOUBLES = sizeof(Sums) / sizeof(double);
  if (threadIdx.x == 0) shared = own;
  cluster_barrier();
  if (threadIdx.x < WARP) {
    union {
      Sums sums;
      double part[DOUBLES];
    } there = {};
    if (threadIdx.x < cluster_size()) {
#pragma unroll
      for (int i = 0; i < DOUBLES; ++i) {
        there.part[i] = cluster_read(reinterpret_cast<const double*>(&shared) + i, threadIdx.x);
      }
    }
    own = merge_warp(there.sums);
  }
  return own;
}

// Cluster = one channel.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    train_fused(const Stored* __restrict__ x, Stored* __restrict__ y, i64 outer, i64 channels, i64 inner, i64 slots,
                i64 magic, const void* scale, const void* bias, i64 parameter_dtype, const void* running_mean,
                const void* running_var, i64 running_dtype, double* mean, double* var, void* new_mean, void* new_var,
                double epsilon, double momentum, double correction) {
  Board<Moments>& board = *reinterpret_cast<Board<Moments>*>(shared_memory());
  uint4* kept = reinterpret_cast<uint4*>(&board + 1);
  const Rows rows(x, outer, channels, inner, slots, magic);
  const i64 channel = blockIdx.x / cluster_size();
  const Share<u32> share(rows.total, cluster_size(), cluster_rank());
  const Given given({scale, bias, parameter_dtype, running_mean, running_var, running_dtype}, channel);
  Moments own = {};
  for (u32 base = share.begin; base < share.end; base += DEPTH * blockDim.x) {
    Span span[DEPTH];
    uint4 raw[DEPTH];
    Real value[CHUNK];
    const u32 mask = rows.spans(span, channel, base, share.end);
    load_spans(raw, x, rows.size, rows.shift, span);
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      const u32 slot = base + k * blockDim.x + threadIdx.x;
      if (slot < share.end) kept[slot - share.begin] = raw[k];
    }
    unpack(value, raw);
    own = merge(own, moments(value, mask));
  }
  own = merge_cluster(merge_block(own, board.warps), board.block);
  if (threadIdx.x == 0) {
    board.affine = finish_forward(own, channel, given, {mean, var, new_mean, new_var}, cluster_rank() == 0, epsilon,
                                  momentum, correction);
  }
  cluster_barrier();
  const Affine affine = board.affine;
  // Each thread finds the vectors that it kept itself.
  for (u32 slot = share.begin + threadIdx.x; slot < share.end; slot += blockDim.x) {
    const Span span = rows.span(channel, slot, true);
    const uint4 raw = kept[slot - share.begin];
    Stored value[LANES];
#pragma unroll
    for (int i = 0; i < LANES; ++i) value[i] = narrow(normalized(lane(raw, i), affine));
    store_span(y, rows.shift, span, value);
  }
}

// Cluster = one channel; `kept` holds the vectors of dy, then those of x.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT)
    backward_fused(const Stored* __restrict__ dy, const Stored* __restrict__ x, Stored* __restrict__ dx, i64 outer,
                   i64 channels, i64 inner, i64 slots, i64 magic, const void* scale, i64 scale_dtype, const void* mean,
                   const void* var, i64 dtype, void* dscale, void* dbias, double epsilon) {
  Board<Slopes>& board = *reinterpret_cast<Board<Slopes>*>(shared_memory());
  const Rows rows(x, outer, channels, inner, slots, magic);
  const i64 channel = blockIdx.x / cluster_size();
  const Share<u32> share(rows.total, cluster_size(), cluster_rank());
  uint4* kept_dy = reinterpret_cast<uint4*>(&board + 1);
  uint4* kept_x = kept_dy + (share.end - share.begin);
  const Given given({scale, scale, scale_dtype, mean, var, dtype}, channel);  // the bias is not needed
  const Real center = static_cast<Real>(given.mean());
  Slopes own = {};
  for (u32 base = share.begin; base < share.end; base += DEPTH * blockDim.x) {
    Span span[DEPTH];
    uint4 raw_dy[DEPTH], raw_x[DEPTH];
    Real value_dy[CHUNK], value_x[CHUNK];
    const u32 mask = rows.spans(span, channel, base, share.end);
    load_spans(raw_dy, dy, rows.size, rows.shift, span);
    load_spans(raw_x, x, rows.size, rows.shift, span);
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      const u32 slot = base + k * blockDim.x + threadIdx.x;
      if (slot < share.end) {
        kept_dy[slot - share.begin] = raw_dy[k];
        kept_x[slot - share.begin] = raw_x[k];
      }
    }
    unpack(value_dy, raw_dy);
    unpack(value_x, raw_x);
    own = merge(own, slopes(value_dy, value_x, center, mask));
  }
  own = merge_cluster(merge_block(own, board.warps), board.block);
  if (threadIdx.x == 0) {
    const double count = static_cast<double>(outer) * static_cast<double>(inner);
    board.affine = finish_backward(own, channel, count, given, dscale, dbias, cluster_rank() == 0, epsilon);
  }
  cluster_barrier();
  const Affine affine = board.affine;
  for (u32 slot = share.begin + threadIdx.x; slot < share.end; slot += blockDim.x) {
    const Span span = rows.span(channel, slot, true);
    const uint4 raw_dy = kept_dy[slot - share.begin];
    const uint4 raw_x = kept_x[slot - share.begin];
    Stored value[LANES];
#pragma unroll
    for (int i = 0; i < LANES; ++i) value[i] = narrow(input_gradient(lane(raw_dy, i), lane(raw_x, i), affine));
    store_span(dx, rows.shift, span, value);
  }
}
