// Sparse attention, forward. q, out [N, HQ, D], k, v [N, H, D] bf16, lse [N, HQ] f32, indices
// [N, H, slots].
//
// A warp owns one token and 16 heads of one key/value head: its 16 query rows are the M of
// mma.m16n8k16, and stay in registers. It walks its own blocks, 16 keys at a time, independently of
// all other warps: no shared memory, no barrier. Keys and values go from the caches straight into
// operand registers (rows.cuh).
//
// Neighboring tokens select mostly the same blocks (8 tokens of a trained model 1.8 times as many
// as one), and the warps of a block are neighboring tokens that walk in the same ascending order.
// So the L1 cache is the tile that they share: it holds all that a staged union of their blocks
// would hold, without the barriers of a ring and without idle warps where tokens disagree. Random
// selections are then bound by L2: N H K block_size D 4 bytes (1.07 GB at T 8192, 16 x 16, 2 x 64,
// about 0.15-0.2 ms), shared ones by the products.
//
// Keys are numbered through the selected blocks, 0 .. visible: every block but the last is before
// the token, so the visible ones are a prefix, and only the last step of 16 has a mask. If
// block_size is not a multiple of 16, a step takes its keys from several blocks.
//
// head_dim above 128: the output is cut into slices, one warp each, which repeat the scores.
//
// Given as macros: those of selected_keys.cuh.
#include "params.cuh"
#include "online_softmax.cuh"
#include "selected_keys.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, HEAD_DIM <= 64 ? 4 : 2)
sparse_fwd(const SparseFwd p) {
    const HeadTile tile(p.tokens, p.kv_heads);
    if (!tile.valid) return;
    const int slice = blockIdx.z * SLICE;

    u32 query[2][WORDS];
    tile.load_rows(query, p.inputs.q);

    const SelectedKeys keys(tile, p.indices, p.document_start, p.slots, p.kv_heads);
    const bf16* k_head = p.inputs.k + tile.kv_head * HEAD_DIM;
    const bf16* v_head = p.inputs.v + tile.kv_head * HEAD_DIM + slice;

    float o[1][SLICE_WORDS][4] = {};
    const float scale = p.softmax_scale * LOG2_E;
    // Of scores that are scaled already.
    OnlineSoftmax<1, LaggingMaximum> softmax(1.0f);

    u32 key[2][WORDS];
    i64 at[2];
    keys.rows(at, 0);
    keys.load(key, k_head, at);

    for (int step = 0; step < keys.steps; ++step) {
        u32 value[2][SLICE_WORDS];
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

        const float step_max[1][2] = {{lane_max<4>(s, 0), lane_max<4>(s, 1)}};
        softmax.advance(o, step_max);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[r][i] = softmax.weight(s[r][i], softmax.reference(0, i / 2));
                softmax.row_sum[0][i / 2] += s[r][i];
            }
        }
        u32 weights[4];
        pack_operand(weights, s[0], s[1]);
        mma_transposed(o[0], weights, value);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = softmax.total(0, half);
        float row[SLICE_WORDS][2];
        scaled_row(row, o[0], half, softmax.normalizer(total));
        if (!tile.has_head(half)) continue;
        Row<SLICE>::store(p.out + tile.row(half) * HEAD_DIM + slice, row, tile.c, 0);
        if (tile.c == 0 && slice == 0) p.lse[tile.row(half)] = softmax.lse(0, half, total);
    }
}
