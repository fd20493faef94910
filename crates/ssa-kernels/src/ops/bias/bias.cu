// A bias added to rows of bf16, and its gradient: the sum of rows.
//
// Forward: eight elements per thread, 4 bytes per element; the bias stays in the L1 cache.
// Backward: a thread sums one column of every `partials`-th row, neighboring threads read
// neighboring columns; bias_sum adds the partial sums in order, in f64. The grid depends on the
// shape alone.
#include "common.cuh"
#include "params.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
bias_fwd(const BiasFwd p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float x[VEC];
        load_vec<VEC>(x, p.x + at);
        int column = int(at % p.width);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            x[e] += to_float(p.bias[column]);
            column = column + 1 == p.width ? 0 : column + 1;
        }
        store_vec<VEC>(p.x + at, x);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
bias_partial(const BiasPartial p) {
    const int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= p.width) return;
    float sum = 0.0f;
    for (i64 row = blockIdx.y; row < p.rows; row += p.partials) {
        sum += to_float(p.dout[row * p.width + column]);
    }
    p.partial[i64(blockIdx.y) * p.width + column] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
bias_sum(const BiasSum p) {
    const int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= p.width) return;
    double sum = 0.0;
    for (int row = 0; row < p.partials; ++row) sum += p.partial[i64(row) * p.width + column];
    accumulate(p.dbias, column, float(sum));
}
