// Sparse attention, gradient of q, and delta = dout . out for the gradients of k and v. q, out,
// dout, dq [N, HQ, D], k, v [N, H, D] bf16; lse, delta [N, HQ] f32.
//
//     p_j = exp(scale q . k_j - lse),   ds_j = p_j (dout . v_j - delta)
//     dq = scale sum_j ds_j k_j
//
// A warp owns one token and 16 heads and walks its own keys, for the reasons given in forward.cu.
// Queries and dout are operands in registers for all steps; a step of 16 keys takes three products,
// q k', dout v' and ds k, of which the last gets k by transposing the registers of the first. out
// is read once here, so delta needs no separate kernel.
//
// Given as macros: those of selected_keys.cuh.
#include "params.cuh"
#include "selected_keys.cuh"

// Dot product of a row of a and one of b, in all four lanes that share them.
DEVICE float dot_rows(const u32 (&a)[WORDS], const u32 (&b)[WORDS]) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
        const float2 x = unpack_bf16(a[w]), y = unpack_bf16(b[w]);
        sum += x.x * y.x + x.y * y.y;
    }
    return quad_sum(sum);
}

extern "C" __global__ void __launch_bounds__(THREADS, HEAD_DIM <= 64 ? 3 : 2)
sparse_bwd_queries(const SparseBwdQueries p) {
    const HeadTile tile(p.tokens, p.kv_heads);
    if (!tile.valid) return;
    const int slice = blockIdx.z * SLICE;

    u32 query[2][WORDS], upstream[2][WORDS];
    tile.load_rows(query, p.out);
    tile.load_rows(upstream, p.dout);
    float row_delta[2], row_lse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        row_delta[half] = dot_rows(query[half], upstream[half]);
        const float* lse = p.lse + tile.row(half);
        row_lse[half] = tile.has_head(half) ? load_read_only(lse) * LOG2_E : infinity();
        if (tile.c == 0 && slice == 0 && tile.has_head(half))
            p.delta[tile.row(half)] = row_delta[half];
    }
    tile.load_rows(query, p.inputs.q);

    const SelectedKeys keys(tile, p.indices, p.document_start, p.slots, p.kv_heads);
    const bf16* k_head = p.inputs.k + tile.kv_head * HEAD_DIM;
    const bf16* v_head = p.inputs.v + tile.kv_head * HEAD_DIM;
    float dq_rows[SLICE_WORDS][4] = {};
    const float scale = p.softmax_scale * LOG2_E;

    u32 key[2][WORDS];
    i64 at[2];
    keys.rows(at, 0);
    keys.load(key, k_head, at);

    for (int step = 0; step < keys.steps; ++step) {
        u32 value[2][WORDS];
        keys.load(value, v_head, at);
        float s[2][4] = {}, ds[2][4] = {};
        mma_rows(s, query, key);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) s[r][i] = exp2_approx(s[r][i] * scale - row_lse[i / 2]);
        }
        if (step + 1 == keys.steps) keys.mask(s, step, 0.0f);
        u32 next[2][WORDS];
        i64 next_at[2];
        keys.rows(next_at, min(step + 1, keys.steps - 1));
        keys.load(next, k_head, next_at);

        mma_rows(ds, upstream, value);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) ds[r][i] = s[r][i] * (ds[r][i] - row_delta[i / 2]);
        }
        u32 dscores[4];
        pack_operand(dscores, ds[0], ds[1]);
        mma_transposed_slice<SLICE>(dq_rows, dscores, key, keys.row(k_head, at[0]) + slice,
                                    keys.row(k_head, at[1]) + slice, tile.c);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            at[r] = next_at[r];
#pragma unroll
            for (int w = 0; w < WORDS; ++w) key[r][w] = next[r][w];
        }
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float row[SLICE_WORDS][2];
        scaled_row(row, dq_rows, half, p.softmax_scale);
        if (tile.has_head(half))
            Row<SLICE>::store(p.dq.at + tile.row(half) * HEAD_DIM + slice, row, tile.c, p.dq.add);
    }
}
