// Sums, copies between types and reductions in a fixed order that belong to no single op.
#include "common.cuh"
#include "params.cuh"

template <typename T> DEVICE void add_assign(const AddAssign<T>& p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float b[VEC];
        load_vec<VEC>(b, p.other + at);
        accumulate_vec<VEC>(p.x + at, b, 1);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
add_assign_bf16(const AddAssign<bf16> p) { add_assign(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
add_assign_f32(const AddAssign<float> p) { add_assign(p); }

template <typename Params> DEVICE void convert(const Params& p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float values[VEC];
        load_vec<VEC>(values, p.x + at);
        store_vec<VEC>(p.out + at, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
f32_to_bf16(const ToBf16 p) { convert(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
bf16_to_f32(const ToF32 p) { convert(p); }

// Rows of `to` elements from rows of `from`: their beginning, or all of them and zeros. A thread
// for every element of `out`.
template <typename T> DEVICE void resize_rows(const ResizeRows<T>& p) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, row = at / p.to;
    const int column = int(at - row * p.to);
    if (at < p.len) p.out[at] = column < p.from ? p.x[row * p.from + column] : T{};
}

extern "C" __global__ void __launch_bounds__(THREADS)
resize_rows_bf16(const ResizeRows<bf16> p) { resize_rows(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
resize_rows_f32(const ResizeRows<float> p) { resize_rows(p); }

// One block: thread t adds elements t, t + SUM_THREADS, ..., then the threads in a fixed order.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
sum_f64(const Sum p) {
    double sum = 0.0;
#pragma unroll 4
    for (i64 i = threadIdx.x; i < p.len; i += SUM_THREADS) sum += p.x[i];
    sum = block_sum<SUM_THREADS>(sum);
    if (threadIdx.x == 0) *p.out = p.factor * sum;
}
