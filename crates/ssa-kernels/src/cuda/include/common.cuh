// Types, conversions, vector loads and reductions that all kernels share. No toolkit header is
// used: NVRTC compiles these sources on machines that have a driver and nothing else.
#pragma once

typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE static __device__ __forceinline__
// The same for members of a struct, where `static` would mean something else.
#define DEVICE_MEMBER __device__ __forceinline__

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

DEVICE float infinity() { return __int_as_float(0x7f800000); }

// ---- bf16

// The upper half of an f32. A struct, so that accidental arithmetic on the bits does not compile.
struct bf16 {
    u16 bits;
};

DEVICE float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE float to_float(float x) { return x; }

// Round to nearest, ties to even; NaN stays NaN.
DEVICE bf16 to_bf16(float x) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
}

// Two values in one register, the first in the lower half.
DEVICE u32 pack_bf16(float first, float second) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(second), "f"(first));
    return r;
}

DEVICE float2 unpack_bf16(u32 pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// As pack_bf16; if `add`, the pair at `old` is added to the values first.
DEVICE u32 accumulate_bf16(const u32* old, float first, float second, int add) {
    if (add) {
        const float2 pair = unpack_bf16(*old);
        first += pair.x, second += pair.y;
    }
    return pack_bf16(first, second);
}

DEVICE void store(float* p, float x) { *p = x; }
DEVICE void store(bf16* p, float x) { *p = to_bf16(x); }

// ---- Read-only memory

// Loads p[OFFSET] through the read-only cache. Nothing may write this memory while the kernel runs;
// the compiler can prove that for `__restrict__` parameters only, not for fields of a struct.
// `__ldg` takes no constant offset: the address of every element would be computed.
#define LOAD_READ_ONLY(TYPE, SUFFIX, REGISTERS, ADDRESS, ...)                 \
    template <int OFFSET = 0> DEVICE TYPE load_read_only(const TYPE* p) {     \
        TYPE x;                                                               \
        asm("ld.global.nc" SUFFIX " " REGISTERS ", [" ADDRESS "];"            \
            : __VA_ARGS__ : "l"(p), "n"(OFFSET * int(sizeof(TYPE))));         \
        return x;                                                             \
    }
LOAD_READ_ONLY(int, ".s32", "%0", "%1 + %2", "=r"(x))
LOAD_READ_ONLY(u32, ".u32", "%0", "%1 + %2", "=r"(x))
LOAD_READ_ONLY(float, ".f32", "%0", "%1 + %2", "=f"(x))
LOAD_READ_ONLY(double, ".f64", "%0", "%1 + %2", "=d"(x))
LOAD_READ_ONLY(bf16, ".u16", "%0", "%1 + %2", "=h"(x.bits))
LOAD_READ_ONLY(int2, ".v2.s32", "{%0, %1}", "%2 + %3", "=r"(x.x), "=r"(x.y))
LOAD_READ_ONLY(uint2, ".v2.u32", "{%0, %1}", "%2 + %3", "=r"(x.x), "=r"(x.y))
LOAD_READ_ONLY(int4, ".v4.s32", "{%0, %1, %2, %3}", "%4 + %5",
               "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w))
LOAD_READ_ONLY(uint4, ".v4.u32", "{%0, %1, %2, %3}", "%4 + %5",
               "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w))
LOAD_READ_ONLY(float4, ".v4.f32", "{%0, %1, %2, %3}", "%4 + %5",
               "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w))
#undef LOAD_READ_ONLY

// ---- Vectors of eight elements: 16 bytes of bf16, 32 of f32

DEVICE void unpack8(float (&x)[8], uint4 raw) {
    const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack_bf16(words[i]);
        x[2 * i] = pair.x;
        x[2 * i + 1] = pair.y;
    }
}

DEVICE void unpack8(float (&x)[8], float4 a, float4 b) {
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

// `p` must be aligned to 16 bytes.
DEVICE void load8(float (&x)[8], const bf16* p) {
    unpack8(x, *reinterpret_cast<const uint4*>(p));
}

DEVICE void load8(float (&x)[8], const float* p) {
    const float4* halves = reinterpret_cast<const float4*>(p);
    unpack8(x, halves[0], halves[1]);
}

// The same from read-only memory.
DEVICE void load8_read_only(float (&x)[8], const bf16* p) {
    unpack8(x, load_read_only(reinterpret_cast<const uint4*>(p)));
}

DEVICE void load8_read_only(float (&x)[8], const float* p) {
    const float4* halves = reinterpret_cast<const float4*>(p);
    unpack8(x, load_read_only(halves), load_read_only<1>(halves));
}

DEVICE void store8(bf16* p, const float (&x)[8]) {
    *reinterpret_cast<uint4*>(p) = make_uint4(
        pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

DEVICE void store8(float* p, const float (&x)[8]) {
    reinterpret_cast<float4*>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

// A gradient. A kernel adds to it if `add`; otherwise it is still zero, and the kernel sets it.
template <typename T> struct Gradient {
    T* at;
    int add;
};

// Adds to a gradient if `add`, otherwise sets it.
template <typename T> DEVICE void accumulate8(T* p, float (&x)[8], int add) {
    if (add) {
        float old[8];
        load8(old, p);
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] += old[i];
    }
    store8(p, x);
}

template <typename T> DEVICE void accumulate(T* p, float x, int add) {
    store(p, add ? to_float(*p) + x : x);
}

template <typename T> DEVICE void accumulate(const Gradient<T>& gradient, i64 at, float x) {
    accumulate(gradient.at + at, x, gradient.add);
}

// ---- Rows of any length, any number of elements

DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// VEC = 8 elements by 16-byte accesses, or VEC = 1.
template <int VEC, typename T> DEVICE void load_vec(float (&x)[VEC], const T* p) {
    if constexpr (VEC == 8) load8(x, p);
    else x[0] = to_float(*p);
}

template <int VEC, typename T> DEVICE void load_vec_read_only(float (&x)[VEC], const T* p) {
    if constexpr (VEC == 8) load8_read_only(x, p);
    else x[0] = to_float(load_read_only(p));
}

template <int VEC, typename T> DEVICE void store_vec(T* p, const float (&x)[VEC]) {
    if constexpr (VEC == 8) store8(p, x);
    else store(p, x[0]);
}

template <int VEC, typename T> DEVICE void accumulate_vec(T* p, float (&x)[VEC], int add) {
    if constexpr (VEC == 8) accumulate8(p, x, add);
    else accumulate(p, x[0], add);
}

template <int VEC, typename T>
DEVICE void accumulate_vec(const Gradient<T>& gradient, i64 at, float (&x)[VEC]) {
    accumulate_vec<VEC>(gradient.at + at, x, gradient.add);
}

// How LANE_COUNT neighboring lanes of a warp divide a row of LENGTH elements in vectors of
// VECTOR_LENGTH. The host chooses both: `RowLayout` in Rust.
template <int LENGTH, int VECTOR_LENGTH, int LANE_COUNT> struct RowLayout {
    static constexpr int VEC = VECTOR_LENGTH, LANES = LANE_COUNT;
    static constexpr int PIECES = LENGTH / VEC, PER_LANE = ceil_div(PIECES, LANES);

    // Calls work(at) for every vector of this lane in a row; lanes that have no row (not `inside`)
    // do nothing.
    template <typename Work>
    static DEVICE_MEMBER void for_each_vector(i64 row, bool inside, Work work) {
        const int lane = threadIdx.x % LANES;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            const int piece = lane + i * LANES;
            if (!inside || piece >= PIECES) break;
            work(row * LENGTH + piece * VEC);
        }
    }
};

// A compile-time constant that can be passed to a generic lambda.
template <int N> struct Constant {
    static constexpr int value = N;
};

// Calls work(Constant<8>{}, at) for every eight elements and work(Constant<1>{}, at) for each of
// the rest, one call per thread. The grid has a thread for every eight elements, in whole blocks:
// two pieces per thread were up to 6 % slower.
template <typename Work> DEVICE void for_each_piece(i64 len, Work work) {
    const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x, whole = len / 8;
    if (thread < whole) work(Constant<8>{}, 8 * thread);
    const i64 rest = 8 * whole + thread;
    if (rest < len) work(Constant<1>{}, rest);
}

// ---- Reductions, in an order that depends on the shape alone

// The sum over LANES neighboring lanes, returned to each of them. All lanes of the warp must call
// it.
template <int LANES, typename T> DEVICE T lanes_sum(T x) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

template <typename T> DEVICE T warp_sum(T x) { return lanes_sum<WARP>(x); }

DEVICE float warp_max(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

enum class Reduction { Sum, Max };

template <Reduction REDUCTION, typename T> DEVICE T combine(T a, T b) {
    if constexpr (REDUCTION == Reduction::Sum) return a + b;
    else return fmaxf(a, b);
}

// Reduces over the block, whose warps have reduced to `x`, in the order of the warps. Every thread
// gets the result. THREADS is the size of the block, a multiple of 32.
template <Reduction REDUCTION, int THREADS, typename T> DEVICE T block_reduce(T x) {
    __shared__ T partial[THREADS / WARP];
    __syncthreads();
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    T total = partial[0];
#pragma unroll
    for (int i = 1; i < THREADS / WARP; ++i) total = combine<REDUCTION>(total, partial[i]);
    return total;
}

template <int THREADS, typename T> DEVICE T block_sum(T x) {
    return block_reduce<Reduction::Sum, THREADS>(warp_sum(x));
}

template <int THREADS> DEVICE float block_max(float x) {
    return block_reduce<Reduction::Max, THREADS>(warp_max(x));
}

// ---- Functions

// 2^x by the special function unit: relative error 2^-22, 2^-inf = 0.
DEVICE float exp2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
