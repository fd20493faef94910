// Sparse attention, forward. q, out [N, HQ, D], k, v [N, H, D] bf16, lse [N, HQ] f32, indices [N,
// H, slots].
//
// A warp owns one token and 16 heads of one key/value head: its 16 query rows are the M of
// mma.m16n8k16, and stay in registers. It walks its own blocks, 16 keys at a time, independently of
// all other warps: no shared memory, no barrier. Keys and values go from the caches straight into
// operand registers (rows.cuh).
//
// Neighbouring tokens choose mostly the same blocks (a trained model's 8 tokens 1.8 times as many
// as one), and the 8 warps of a block are 8 neighbouring tokens that walk in the same ascending
// order. So the first level cache is the tile that they share: it holds all that a staged union of
// their blocks would hold, without the barriers of a ring and without idle warps where tokens
// disagree. Random selections are then bound by the second level: N H K block_size D 4 bytes (1.07
// GB at T 8192, 16 x 16, 2 x 64, about 0.15-0.2 ms), shared ones by the products.
//
// Keys are numbered through the selected blocks, 0 .. visible: every block but the last lies before
// the token, so the visible ones are a prefix, and only the last step of 16 has a mask. If
// block_size is no multiple of 16, a step takes its keys from several blocks.
//
// Softmax: the maximum that exponents are taken relative to is raised only when a score exceeds it
// by 2^8, which is rare after the first block; then everything is rescaled. The result is the same
// sum, its terms at most 256.
//
// head_dim above 128: the output is cut into slices, one warp each, which repeat the scores.
#include "selected_keys.cuh"

// Given as macros: HEAD_DIM, GROUP, BLOCK_SIZE, SLICE (elements of the head that one warp
// accumulates, a divisor).

extern "C" __global__ void __launch_bounds__(THREADS, HEAD_DIM <= 64 ? 4 : 2)
sparse_fwd(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
           const int* __restrict__ indices, const int* __restrict__ document_start, bf16* __restrict__ out,
           float* __restrict__ lse, int tokens, int kv_heads, int slots, float softmax_scale) {
    const Owner own(tokens, kv_heads);
    if (!own.valid) return;
    const int slice = blockIdx.z * SLICE;

    u32 query[2][WORDS];
    own.load_rows(query, q);

    const SelectedKeys keys(own, indices, document_start, slots, kv_heads);
    const bf16* k_head = k + own.kv_head * HEAD_DIM;
    const bf16* v_head = v + own.kv_head * HEAD_DIM + slice;

    float acc[Row<SLICE>::WORDS][4] = {};
    float top[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};
    const float scale = softmax_scale * LOG2_E;

    u32 key[2][WORDS];
    i64 at[2];
    keys.rows(at, 0);
    keys.load(key, k_head, at);

    for (int step = 0; step < keys.steps; ++step) {
        u32 value[2][Row<SLICE>::WORDS];
        keys.load(value, v_head, at);

        float s[2][4] = {};
        mma_rows(s, query, key);
        if (step + 1 < keys.steps) {
            keys.rows(at, step + 1);
            keys.load(key, k_head, at);
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) s[r][i] *= scale;
        }
        if (step + 1 == keys.steps) keys.mask(s, step, -infinity());

        float high[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            high[half] = fmaxf(fmaxf(s[0][2 * half], s[0][2 * half + 1]), fmaxf(s[1][2 * half], s[1][2 * half + 1]));
        }
        if (__any_sync(ALL_LANES, high[0] > top[0] + 8.0f || high[1] > top[1] + 8.0f)) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                high[half] = fmaxf(quad_max(high[half]), top[half]);
                const float factor = exp2_approx(top[half] - high[half]);
                top[half] = high[half];
                sum[half] *= factor;
#pragma unroll
                for (int w = 0; w < Row<SLICE>::WORDS; ++w) {
                    acc[w][2 * half] *= factor;
                    acc[w][2 * half + 1] *= factor;
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[r][i] = exp2_approx(s[r][i] - top[i / 2]);
                sum[i / 2] += s[r][i];
            }
        }
        u32 p[4];
        pack_operand(p, s[0], s[1]);
        mma_transposed(acc, p, value);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(sum[half]);
        float row[Row<SLICE>::WORDS][2];
        scaled_row(row, acc, half, 1.0f / total);
        if (!own.has_head(half)) continue;
        Row<SLICE>::store(out + own.row(half) * HEAD_DIM + slice, row, own.c, 0);
        if (own.c == 0 && slice == 0) lse[own.row(half)] = (top[half] + __log2f(total)) * LN_2;
    }
}
