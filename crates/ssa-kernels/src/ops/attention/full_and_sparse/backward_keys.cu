// Backward of full and sparse attention at once, what belongs to keys (forward.cu; tiled/backward_keys.cu, whose pieces and
// partial sums are used here too):
//
//   dv_j += sum_r p_rj dout_r + sum_{r: block of j selected} p'_rj dout'_r,   dk_j += softmax_scale sum_r ds_rj q_r
//
// with ds of both streams in one sum (backward_queries.cu). A step is 16 rows, one token, and a row tile of the products is 16
// keys, of one block: whether it is selected is one bit.
#include "attention.cuh"
#include "selection.cuh"

// Given as macros: KEY_TILES, WARPS, TILE_ROWS, STAGES of the ring, MIN_BLOCKS of a multiprocessor, BLOCK_SIZE.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_KEYS = 16 * KEY_TILES;
constexpr int TILE_KEYS = WARPS * WARP_KEYS;
constexpr int DEPTH_STEPS = DEPTH / 16;
static_assert(GROUP == 16, "a step is one token");
// Shared memory: keys, values, the ring of q and dout tiles, the ring of row statistics.
constexpr int STAGE_BYTES = 3 * TILE_BYTES<TILE_ROWS>;
constexpr int STAGE_STATISTICS = 2 * TILE_ROWS * 8;

extern __shared__ __align__(1024) u8 shared[];

// p = e^(s - lse) and ds = p (dp - delta) in the places of s and dp, transposed: the statistics are those of columns.
DEVICE void probabilities(
    float (&p)[KEY_TILES][2][4], float (&ds)[KEY_TILES][2][4], const float (&s)[KEY_TILES][2][4],
    const float4* statistics, float scale
) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        const float4 pair = statistics[4 * n];
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                p[m][n][i] = exp2_approx(s[m][n][i] * scale - (i % 2 ? pair.z : pair.x));
                ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 ? pair.w : pair.y));
            }
    }
}

// accumulator[m] += a[m] * rows of `tile`.
DEVICE void add_product(float (&accumulator)[KEY_TILES][2 * DEPTH_STEPS][4], const u32 (&a)[KEY_TILES][4], u32 rows_trans) {
#pragma unroll
    for (int d = 0; d < DEPTH_STEPS; ++d) {
        u32 b[2][2];
        load_b_trans(b, fragment_at(rows_trans, 0, d));
        mma_pair(accumulator, 2 * d, a, b);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) full_and_sparse_attention_bwd_keys(
    const bf16* q, const bf16* k, const bf16* v, const u32* selection,
    const bf16* full_dout, const float2* full_statistics, const bf16* sparse_dout, const float2* sparse_statistics,
    bf16* dk, int add_dk, bf16* dv, int add_dv, float* partial,
    const int4* pieces, // as in tiled/backward_keys.cu
    int tokens, int kv_heads, int selection_words, float softmax_scale
) {
    const int4 tile = pieces[blockIdx.x / kv_heads * 2], piece = pieces[blockIdx.x / kv_heads * 2 + 1];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int first_key = tile.w, keys = piece.w, rows_begin = piece.x, rows_end = piece.y;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_key = threadIdx.x / WARP * WARP_KEYS;
    const int row_tiles = (rows_end - rows_begin + TILE_ROWS - 1) / TILE_ROWS;
    const i64 first_statistics = (i64(kv_head) * tokens + tile.x) * GROUP;

    const u32 k_tile = shared_address(shared), v_tile = k_tile + TILE_BYTES<TILE_KEYS>;
    const u32 ring = v_tile + TILE_BYTES<TILE_KEYS>;
    constexpr int STATISTICS = 2 * TILE_BYTES<TILE_KEYS> + STAGES * STAGE_BYTES;
    const auto copy_rows = [&](int index) {
        const int row = rows_begin + index * TILE_ROWS, stage = index % STAGES;
        const u32 q_tile = ring + stage * STAGE_BYTES;
        copy_tile<TILE_ROWS, THREADS>(q_tile, q, row_index, row, rows_end);
        copy_tile<TILE_ROWS, THREADS>(q_tile + TILE_BYTES<TILE_ROWS>, full_dout, row_index, row, rows_end);
        copy_tile<TILE_ROWS, THREADS>(q_tile + 2 * TILE_BYTES<TILE_ROWS>, sparse_dout, row_index, row, rows_end);
        for (int i = threadIdx.x; i < 2 * TILE_ROWS; i += THREADS) {
            const float2* source = i < TILE_ROWS ? full_statistics : sparse_statistics;
            const int r = row + i % TILE_ROWS;
            copy_async8(
                k_tile + STATISTICS + stage * STAGE_STATISTICS + i * 8, source + first_statistics + r, r < rows_end);
        }
    };
    copy_tile<TILE_KEYS, THREADS>(k_tile, k, key_index, first_key, keys);
    copy_tile<TILE_KEYS, THREADS>(v_tile, v, key_index, first_key, keys);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (i < row_tiles) copy_rows(i);
        copy_async_commit();
    }

    u32 k_fragments[DEPTH_STEPS][KEY_TILES][4];
    const u32 k_lane = fragment_a(k_tile + warp_key * ROW_BYTES, lane);
    const u32 v_lane = fragment_a(v_tile + warp_key * ROW_BYTES, lane);
    copy_async_wait<STAGES - 2>();
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH_STEPS; ++d)
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m) load_a(k_fragments[d][m], fragment_at(k_lane, 16 * m, d));
    // Values are read again for every step: their registers go to the accumulators.
    const auto values_times = [&](float (&x)[KEY_TILES][2][4], u32 rows) {
        set_zero(x);
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            u32 a[KEY_TILES][4], b[2][2];
            load_b(b, fragment_at(rows, 0, d));
#pragma unroll
            for (int m = 0; m < KEY_TILES; ++m) load_a(a[m], fragment_at(v_lane, 16 * m, d));
            mma_pair(x, 0, a, b);
        }
    };

    float dk_keys[KEY_TILES][2 * DEPTH_STEPS][4], dv_keys[KEY_TILES][2 * DEPTH_STEPS][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    const int warp_first_key = first_key + warp_key;
    const u32* const token_words = selection + (i64(tile.x) * kv_heads + kv_head) * selection_words;
    const i64 token_stride = i64(kv_heads) * selection_words;
    const auto load_word = [&](int row) {
        return __ldg(token_words + min(row / GROUP, tile.y - 1) * token_stride + warp_first_key / BLOCK_SIZE / 32);
    };
    u32 next_word = load_word(rows_begin);
    for (int index = 0; index < row_tiles; ++index) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (index + STAGES - 1 < row_tiles) copy_rows(index + STAGES - 1);
        copy_async_commit();

        const u32 q_tile = ring + index % STAGES * STAGE_BYTES;
        const float4* row_statistics =
            reinterpret_cast<const float4*>(shared + STATISTICS + index % STAGES * STAGE_STATISTICS) + lane % 4;
#pragma unroll
        for (int step = 0; step < TILE_ROWS; step += 16) {
            const int row = rows_begin + index * TILE_ROWS + step, position = row / GROUP;
            const u32 word = next_word;
            next_word = load_word(row + 16);
            if (warp_first_key > position || row >= rows_end) continue;

            const u32 q_rows = q_tile + step * ROW_BYTES, full_rows = q_rows + TILE_BYTES<TILE_ROWS>;
            float s[KEY_TILES][2][4], ds[KEY_TILES][2][4], p[KEY_TILES][2][4];
            set_zero(s);
            values_times(ds, fragment_b(full_rows, lane));
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                u32 b[2][2];
                load_b(b, fragment_at(fragment_b(q_rows, lane), 0, d));
                mma_pair(s, 0, k_fragments[d], b);
            }
            if (warp_first_key + WARP_KEYS > position + 1) {
#pragma unroll
                for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
                    for (int n = 0; n < 2; ++n)
#pragma unroll
                        for (int i = 0; i < 4; ++i)
                            if (warp_first_key + 16 * m + i / 2 * 8 + lane / 4 > position) s[m][n][i] = -infinity();
            }
            u32 a[KEY_TILES][4];
            probabilities(p, ds, s, row_statistics + step / 2, scale);
            to_a(a, p, 0);
            add_product(dv_keys, a, fragment_b_trans(full_rows, lane));

            u32 is_selected[KEY_TILES], any = 0;
#pragma unroll
            for (int m = 0; m < KEY_TILES; ++m)
                any |= is_selected[m] = block_is_selected(word, warp_first_key + 16 * m);
            if (any) {
                const u32 sparse_rows = full_rows + TILE_BYTES<TILE_ROWS>;
                float sparse_ds[KEY_TILES][2][4];
#pragma unroll
                for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
                    for (int i = 0; i < 8; ++i)
                        if (!is_selected[m]) s[m][i / 4][i % 4] = -infinity();
                values_times(sparse_ds, fragment_b(sparse_rows, lane));
                probabilities(p, sparse_ds, s, row_statistics + (TILE_ROWS + step) / 2, scale);
                to_a(a, p, 0);
                add_product(dv_keys, a, fragment_b_trans(sparse_rows, lane));
#pragma unroll
                for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
                    for (int i = 0; i < 8; ++i) ds[m][i / 4][i % 4] += sparse_ds[m][i / 4][i % 4];
            }
            to_a(a, ds, 0);
            add_product(dk_keys, a, fragment_b_trans(q_rows, lane));
        }
    }
    copy_async_wait<0>();
    write_keys<TILE_KEYS>(
        dk_keys, dv_keys, dk, add_dk, dv, add_dv, partial, piece.z, key_index, kv_head, kv_heads, first_key, warp_key, keys,
        softmax_scale, 0, lane);
}
