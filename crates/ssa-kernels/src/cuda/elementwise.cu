// Sums, copies between types and fixed-order reductions that belong to no single op.
#include "common.cuh"

template <typename T> struct AddAssign {
    T* x;
    const T* other;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float b[VEC];
        load_vec<VEC>(b, other + at);
        accumulate_vec<VEC>(x + at, b, 1);
    }
};

extern "C" __global__ void __launch_bounds__(256) add_assign_bf16(bf16* x, const bf16* other, i64 len) {
    for_each_piece(len, AddAssign<bf16>{x, other});
}

extern "C" __global__ void __launch_bounds__(256) add_assign_f32(float* x, const float* other, i64 len) {
    for_each_piece(len, AddAssign<float>{x, other});
}

template <typename From, typename To> struct Convert {
    const From* x;
    To* out;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float values[VEC];
        load_vec<VEC>(values, x + at);
        store_vec<VEC>(out + at, values);
    }
};

extern "C" __global__ void __launch_bounds__(256) f32_to_bf16(const float* x, bf16* out, i64 len) {
    for_each_piece(len, Convert<float, bf16>{x, out});
}

extern "C" __global__ void __launch_bounds__(256) bf16_to_f32(const bf16* x, float* out, i64 len) {
    for_each_piece(len, Convert<bf16, float>{x, out});
}

// Rows of `to` elements from rows of `from`: their beginning, or all of them and zeros. A thread
// for every element of `out`.
template <typename T> DEVICE void resize_rows(const T* x, T* out, int from, int to, i64 len) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, row = at / to;
    const int column = int(at - row * to);
    if (at < len) out[at] = column < from ? x[row * from + column] : T{};
}

extern "C" __global__ void __launch_bounds__(256)
resize_rows_bf16(const bf16* x, bf16* out, int from, int to, i64 len) { resize_rows(x, out, from, to, len); }

extern "C" __global__ void __launch_bounds__(256)
resize_rows_f32(const float* x, float* out, int from, int to, i64 len) { resize_rows(x, out, from, to, len); }

// ---- Sums of f64
// ---------------------------------------------------------------------------------------------------------

constexpr int SUM_THREADS = 1024;

// out = factor * sum of x, by one block: thread t adds elements t, t + 1024, ..., then the threads
// in a fixed order.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
sum_f64(const double* x, i64 len, double factor, double* out) {
    double sum = 0.0;
#pragma unroll 4
    for (i64 i = threadIdx.x; i < len; i += SUM_THREADS) sum += x[i];
    sum = block_sum<SUM_THREADS>(sum);
    if (threadIdx.x == 0) *out = factor * sum;
}
