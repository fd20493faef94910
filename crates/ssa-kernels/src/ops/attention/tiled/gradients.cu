// The two small kernels around the backward passes of attention: what the gradients of scores need
// of a row, and the sum of partial gradients of keys. Both are bound by memory.
//
// Given as macros: HEAD_DIM, GROUP, ROW_LANES, the lanes that share a row. THREADS of a block is a
// constant.
#include "params.cuh"
#include "attention.cuh"

// Chunks of 8 elements of a row.
constexpr int ROW_CHUNKS = HEAD_DIM / 8;
static_assert(ROW_CHUNKS <= ROW_LANES, "a lane has at most one chunk of a row");

// Writes lse / ln 2 and delta of every row, `[H, N, GROUP]`, so that the packed rows of a document
// and key/value head are contiguous. A query that saw no key gets infinity, which makes its
// probabilities zero.
extern "C" __global__ void __launch_bounds__(THREADS)
attention_row_statistics(const AttentionRowStatistics p) {
    const i64 row = i64(blockIdx.x) * (THREADS / ROW_LANES) + threadIdx.x / ROW_LANES;
    const int chunk = threadIdx.x % ROW_LANES;
    const bool valid = row < i64(p.tokens) * p.kv_heads * GROUP;
    float delta = 0.0f;
    if (valid && chunk < ROW_CHUNKS) {
        float a[8], b[8];
        load8(a, p.out + row * HEAD_DIM + chunk * 8);
        load8(b, p.dout + row * HEAD_DIM + chunk * 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) delta += a[i] * b[i];
    }
    delta = lanes_sum<ROW_LANES>(delta);
    if (!valid || chunk != 0) return;
    const i64 token = row / (p.kv_heads * GROUP);
    const int head = int(row % (p.kv_heads * GROUP));
    const float lse = p.lse[row];
    p.statistics[statistics_row(head / GROUP, p.tokens, token) + head % GROUP] =
        make_float2(lse == -infinity() ? infinity() : lse * LOG2_E, delta);
}

// Adds the partial sums of key tiles whose rows were cut, in the order of the pieces. An entry of
// `tiles` is: first key of the tile over the batch, its keys, first partial sum, their number.
extern "C" __global__ void __launch_bounds__(THREADS)
attention_sum_keys(const AttentionSumKeys p) {
    const int4 tile = p.tiles[blockIdx.x / p.kv_heads];
    const int kv_head = blockIdx.x % p.kv_heads;
    const int tile_chunks = p.tile_keys * ROW_CHUNKS;
    const int index = blockIdx.y * THREADS + threadIdx.x, is_dv = index / tile_chunks;
    const int row = index / ROW_CHUNKS % p.tile_keys, chunk = index % ROW_CHUNKS;
    if (is_dv > 1 || row >= tile.y) return;
    float sum[8] = {};
    for (int i = 0; i < tile.w; ++i) {
        const i64 slot = i64(tile.z + i) * p.kv_heads + kv_head;
        float x[8];
        load8(x, p.partial + (slot * 2 * tile_chunks + index) * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[e] += x[e];
    }
    const KeyRows key_index(tile.x, kv_head, p.kv_heads);
    const Gradient<bf16> gradient{is_dv ? p.dv.at : p.dk.at, is_dv ? p.dv.add : p.dk.add};
    accumulate8(gradient.at + key_index(row) * HEAD_DIM + chunk * 8, sum, gradient.add);
}
