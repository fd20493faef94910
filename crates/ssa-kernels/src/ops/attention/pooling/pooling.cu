// Block means and their gradient. x and dx [N, WIDTH] bf16 with WIDTH = H * D, pooled and dpooled [C, WIDTH] f32.
//
// Means stay in f32: selection ranks blocks by them, and rounding them to bf16 would move a score by 2^-9 of its size, more
// than the distance of many neighbouring ranks. They are 1 / block_size of the bytes read.
//
// One thread owns 8 columns of a block and adds its rows in the order of the tokens, eight 16-byte loads in flight. Bytes:
// x once. `block_start` [C + 1] is the first token of every block.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 128
#endif
constexpr int THREADS = 128;
constexpr int VECTORS = WIDTH / 8;
static_assert(WIDTH % 8 == 0, "rows are whole 16-byte vectors");

// Block and first column of this thread; false beyond the last block.
DEVICE bool owner(i64 blocks, i64& block, int& column) {
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x;
    block = item / VECTORS;
    column = int(item % VECTORS) * 8;
    return block < blocks;
}

extern "C" __global__ void __launch_bounds__(THREADS)
mean_pool_fwd(const bf16* __restrict__ x, const int* __restrict__ block_start, float* __restrict__ pooled, int blocks) {
    i64 block;
    int column;
    if (!owner(blocks, block, column)) return;
    const int start = block_start[block], end = block_start[block + 1];
    float sum[8] = {};
#pragma unroll 8
    for (int token = start; token < end; ++token) {
        float row[8];
        load8(row, x + i64(token) * WIDTH + column);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] += row[i];
    }
    const float mean = 1.0f / float(end - start);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] *= mean;
    store8(pooled + block * WIDTH + column, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS)
mean_pool_bwd(const float* __restrict__ dpooled, const int* __restrict__ block_start, bf16* __restrict__ dx, int add,
              int blocks) {
    i64 block;
    int column;
    if (!owner(blocks, block, column)) return;
    const int start = block_start[block], end = block_start[block + 1];
    const float mean = 1.0f / float(end - start);
    float row[8];
    load8(row, dpooled + block * WIDTH + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) row[i] *= mean;
    for (int token = start; token < end; ++token) {
        float sum[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] = row[i];
        accumulate8(dx + i64(token) * WIDTH + column, sum, add);
    }
}
