// Block means and their gradient. x and dx [N, WIDTH] bf16 with WIDTH = H * D, pooled and dpooled
// [C, WIDTH] bf16, or f32 for selection: it ranks blocks by their means, and rounding those to bf16
// would move a score by 2^-9 of its size, more than many neighboring ranks differ. The means are
// 1 / block_size of the bytes read.
//
// Forward: a block of threads owns one block of tokens and COLUMNS vectors, one a thread, and takes
// ROWS rows at a time; the sums of the rows are added in order. Bytes: x once. `block_start`
// [C + 1] is the first token of every block. A vector is ROW_VEC elements.
#include "common.cuh"
#include "params.cuh"

// Given as macros: WIDTH, ROW_VEC.

constexpr int VEC = ROW_VEC, VECTORS = WIDTH / VEC;
constexpr int ROWS = THREADS / COLUMNS;

template <typename T> DEVICE void pool(const MeanPoolFwd<T>& p) {
    __shared__ __align__(16) float sums[ROWS][COLUMNS][VEC];
    const i64 block = blockIdx.x;
    const int column = threadIdx.x % COLUMNS, first_row = threadIdx.x / COLUMNS;
    const int vector = blockIdx.y * COLUMNS + column;
    const bf16* __restrict__ x = p.x;
    const int start = p.block_start[block], end = p.block_start[block + 1];
    float sum[VEC] = {};
    if (vector < VECTORS) {
#pragma unroll 4
        for (int token = start + first_row; token < end; token += ROWS) {
            float row[VEC];
            load_vec<VEC>(row, x + i64(token) * WIDTH + vector * VEC);
#pragma unroll
            for (int i = 0; i < VEC; ++i) sum[i] += row[i];
        }
    }
    store_vec<VEC>(sums[first_row][column], sum);
    __syncthreads();
    if (first_row != 0 || vector >= VECTORS) return;
#pragma unroll
    for (int r = 1; r < ROWS; ++r) {
        float other[VEC];
        load_vec<VEC>(other, sums[r][column]);
#pragma unroll
        for (int i = 0; i < VEC; ++i) sum[i] += other[i];
    }
    const float mean = 1.0f / float(end - start);
#pragma unroll
    for (int i = 0; i < VEC; ++i) sum[i] *= mean;
    store_vec<VEC>(p.pooled + block * WIDTH + vector * VEC, sum);
}

// Grid: (C, VECTORS / COLUMNS).
extern "C" __global__ void __launch_bounds__(THREADS)
mean_pool_fwd(const MeanPoolFwd<bf16> p) { pool(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
mean_pool_f32_fwd(const MeanPoolFwd<float> p) { pool(p); }

// One thread owns one vector of a block.
extern "C" __global__ void __launch_bounds__(THREADS)
mean_pool_bwd(const MeanPoolBwd p) {
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x, block = item / VECTORS;
    const int column = int(item % VECTORS) * VEC;
    if (block >= p.blocks) return;
    const int start = load_read_only(p.block_start + block);
    const int end = load_read_only<1>(p.block_start + block);
    const float mean = 1.0f / float(end - start);
    float row[VEC];
    load_vec_read_only<VEC>(row, p.dpooled + block * WIDTH + column);
#pragma unroll
    for (int i = 0; i < VEC; ++i) row[i] *= mean;
    for (int token = start; token < end; ++token) {
        float sum[VEC];
#pragma unroll
        for (int i = 0; i < VEC; ++i) sum[i] = row[i];
        accumulate_vec<VEC>(p.dx, i64(token) * WIDTH + column, sum);
    }
}
