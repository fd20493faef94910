// The two small kernels around the backward passes of attention: what the gradients of scores need
// of a row, and the sum of partial gradients of keys. Both are bound by memory.
#include "attention.cuh"

// Writes lse / ln 2 and delta of every row, `[H, N, GROUP]`, so that packed rows lie in a row. A
// query that saw no key gets infinity: its probabilities come out as zero.
extern "C" __global__ void __launch_bounds__(256) attention_row_statistics(
    const bf16* out, const bf16* dout, const float* lse, float2* statistics, int tokens, int kv_heads
) {
    constexpr int LANES = next_power_of_two(HEAD_DIM / 8);
    const i64 row = i64(blockIdx.x) * (256 / LANES) + threadIdx.x / LANES;
    const int chunk = threadIdx.x % LANES;
    const bool valid = row < i64(tokens) * kv_heads * GROUP;
    float delta = 0.0f;
    if (valid && chunk < HEAD_DIM / 8) {
        float a[8], b[8];
        load8(a, out + row * HEAD_DIM + chunk * 8);
        load8(b, dout + row * HEAD_DIM + chunk * 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) delta += a[i] * b[i];
    }
    delta = lanes_sum<LANES>(delta);
    if (!valid || chunk != 0) return;
    const i64 token = row / (kv_heads * GROUP);
    const int head = int(row % (kv_heads * GROUP));
    const float x = lse[row];
    statistics[statistics_row(head / GROUP, tokens, token) + head % GROUP] =
        make_float2(x == -infinity() ? infinity() : x * LOG2_E, delta);
}

// Adds the partial sums of key tiles whose rows were cut, in the order of the pieces.
extern "C" __global__ void __launch_bounds__(256) attention_sum_keys(
    const float* partial, bf16* dk, int add_dk, bf16* dv, int add_dv,
    const int4* tiles, // first key of the tile over the batch, its keys, first partial sum, their number
    int tile_keys, int kv_heads
) {
    const int4 tile = tiles[blockIdx.x / kv_heads];
    const int kv_head = blockIdx.x % kv_heads;
    constexpr int ROW_CHUNKS = HEAD_DIM / 8;
    const int index = blockIdx.y * 256 + threadIdx.x, is_dv = index / (tile_keys * ROW_CHUNKS);
    const int row = index / ROW_CHUNKS % tile_keys, chunk = index % ROW_CHUNKS;
    if (is_dv > 1 || row >= tile.y) return;
    float sum[8] = {};
    for (int i = 0; i < tile.w; ++i) {
        float x[8];
        load8(x, partial + ((i64(tile.z + i) * kv_heads + kv_head) * 2 * tile_keys * ROW_CHUNKS + index) * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[e] += x[e];
    }
    const KeyRows key_index(tile.x, kv_head, kv_heads);
    accumulate8((is_dv ? dv : dk) + key_index(row) * HEAD_DIM + chunk * 8, sum, is_dv ? add_dv : add_dk);
}
