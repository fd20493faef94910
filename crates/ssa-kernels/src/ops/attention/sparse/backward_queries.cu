// Sparse attention, gradient of q, and delta = dout . out for the gradients of k and v. q, out,
// dout, dq [N, HQ, D], k, v [N, H, D] bf16; lse, delta [N, HQ] f32.
//
//     p_j = exp(scale q . k_j - lse),   ds_j = p_j (dout . v_j - delta),   dq = scale sum_j ds_j k_j
//
// A warp owns one token and 16 heads and walks its own keys, as in the forward (there the
// argument). Queries and dout are operands in registers for all steps; a step of 16 keys takes
// three products, q k', dout v' and ds k, of which the last gets k by transposing the registers of
// the first. out is read once here, so delta needs no kernel of its own.
#include "selected_keys.cuh"

// Given as macros: HEAD_DIM, GROUP, BLOCK_SIZE, SLICE (elements of the head that one warp
// accumulates, a divisor).

// Sum over a row of products of pairs, of both rows of a lane.
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
sparse_bwd_queries(const bf16* __restrict__ dout, const bf16* __restrict__ q, const bf16* __restrict__ k,
                   const bf16* __restrict__ v, const bf16* __restrict__ out, const float* __restrict__ lse,
                   const int* __restrict__ indices, const int* __restrict__ document_start, float* __restrict__ delta,
                   bf16* __restrict__ dq, int add, int tokens, int kv_heads, int slots, float softmax_scale) {
    const Owner own(tokens, kv_heads);
    if (!own.valid) return;
    const int slice = blockIdx.z * SLICE;

    u32 query[2][WORDS], upstream[2][WORDS];
    own.load_rows(query, out);
    own.load_rows(upstream, dout);
    float row_delta[2], row_lse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        row_delta[half] = dot_rows(query[half], upstream[half]);
        row_lse[half] = own.has_head(half) ? lse[own.row(half)] * LOG2_E : infinity();
        if (own.c == 0 && slice == 0 && own.has_head(half)) delta[own.row(half)] = row_delta[half];
    }
    own.load_rows(query, q);

    const SelectedKeys keys(own, indices, document_start, slots, kv_heads);
    const bf16* k_head = k + own.kv_head * HEAD_DIM;
    const bf16* v_head = v + own.kv_head * HEAD_DIM;
    float acc[Row<SLICE>::WORDS][4] = {};
    const float scale = softmax_scale * LOG2_E;

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
        u32 p[4];
        pack_operand(p, ds[0], ds[1]);
        mma_transposed_slice<SLICE>(acc, p, key, keys.row(k_head, at[0]) + slice, keys.row(k_head, at[1]) + slice, own.c);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            at[r] = next_at[r];
#pragma unroll
            for (int w = 0; w < WORDS; ++w) key[r][w] = next[r][w];
        }
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float row[Row<SLICE>::WORDS][2];
        scaled_row(row, acc, half, softmax_scale);
        if (own.has_head(half)) Row<SLICE>::store(dq + own.row(half) * HEAD_DIM + slice, row, own.c, add);
    }
}
