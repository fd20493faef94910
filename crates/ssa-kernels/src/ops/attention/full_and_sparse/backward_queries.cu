// Backward of full and sparse attention at once, what belongs to queries (forward.cu; tiled/backward_queries.cu):
//
//   ds_rj = p_rj (dout_r . v_j - delta_r) + [block of j selected] p'_rj (dout'_r . v_j - delta'_r)
//   dq_r += softmax_scale sum_j ds_rj k_j
//
// where the primed values are of the sparse stream. Scores and the product with K are shared; only a selected tile pays for a
// second dP = dout' V^T. The selection takes no gradient.
#include "attention.cuh"
#include "selection.cuh"

// Given as macros: ROW_TILES, WARPS, KEYS of a tile in shared memory and STEP_KEYS whose scores are in registers, STAGES of
// the ring, MIN_BLOCKS of a multiprocessor, BLOCK_SIZE.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int TILE_ROWS = WARPS * WARP_ROWS;
constexpr int STEP_COLUMNS = STEP_KEYS / 8;
constexpr int DEPTH_COLUMNS = DEPTH / 8;
constexpr int DEPTH_STEPS = DEPTH / 16;
// Shared memory: the rows of q (and at the end of dq), of both gradients, then the ring of key and value tiles.
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) full_and_sparse_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const u32* selection,
    const bf16* full_dout, const float2* full_statistics, const bf16* sparse_dout, const float2* sparse_statistics,
    bf16* dq, int add,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int tokens, int kv_heads, int selection_words, float softmax_scale
) {
    const int4 tile = tiles[blockIdx.x / kv_heads];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int rows = tile.y * GROUP, first_row = tile.w;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * WARP_ROWS;
    const int first_token = (first_row + warp_row) / GROUP;
    const SelectedTokens<ROW_TILES> selected(
        selection, selection_words, tile.x + first_token, tile.y - first_token, kv_head, kv_heads);

    const int keys_end = (min(first_row + TILE_ROWS, rows) - 1) / GROUP + 1;
    const int key_tiles = (keys_end + KEYS - 1) / KEYS;

    const u32 q_tile = shared_address(shared), full_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 sparse_tile = full_tile + TILE_BYTES<TILE_ROWS>, ring = sparse_tile + TILE_BYTES<TILE_ROWS>;
    const auto copy_keys = [&](int index) {
        const u32 stage = ring + index % STAGES * STAGE_BYTES;
        copy_tile<KEYS, THREADS>(stage, k, key_index, index * KEYS, keys_end);
        copy_tile<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, index * KEYS, keys_end);
    };
    copy_tile<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
    copy_tile<TILE_ROWS, THREADS>(full_tile, full_dout, row_index, first_row, rows);
    copy_tile<TILE_ROWS, THREADS>(sparse_tile, sparse_dout, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (i < key_tiles) copy_keys(i);
        copy_async_commit();
    }

    float2 full_row[ROW_TILES][2], sparse_row[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const i64 row = (i64(kv_head) * tokens + tile.x) * GROUP +
                            min(first_row + warp_row + 16 * m + 8 * half + lane / 4, rows - 1);
            full_row[m][half] = full_statistics[row];
            sparse_row[m][half] = sparse_statistics[row];
        }

    // Most tiles need q and the gradient of full attention, which stay in registers.
    u32 q_fragments[DEPTH_STEPS][ROW_TILES][4], full_fragments[DEPTH_STEPS][ROW_TILES][4];
    const u32 sparse_lane = fragment_a(sparse_tile + warp_row * ROW_BYTES, lane);
    copy_async_wait<STAGES - 2>();
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH_STEPS; ++d)
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            load_a(q_fragments[d][m], fragment_at(fragment_a(q_tile + warp_row * ROW_BYTES, lane), 16 * m, d));
            load_a(full_fragments[d][m], fragment_at(fragment_a(full_tile + warp_row * ROW_BYTES, lane), 16 * m, d));
        }

    float dq_rows[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(dq_rows);
    u32 next_words[ROW_TILES];
    selected.load(next_words, 0);
    for (int index = 0; index < key_tiles; ++index) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (index + STAGES - 1 < key_tiles) copy_keys(index + STAGES - 1);
        copy_async_commit();

        u32 words[ROW_TILES];
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) words[m] = next_words[m];
        selected.load(next_words, min(index + 1, key_tiles - 1) * KEYS);

        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 k_lane = fragment_b(k_tile, lane), v_lane = fragment_b(k_tile + TILE_BYTES<KEYS>, lane);
        const u32 k_trans_lane = fragment_b_trans(k_tile, lane);
#pragma unroll
        for (int step = 0; step < KEYS; step += STEP_KEYS) {
            float s[ROW_TILES][STEP_COLUMNS][4], ds[ROW_TILES][STEP_COLUMNS][4];
            set_zero(s);
            set_zero(ds);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d)
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    load_b(b, fragment_at(k_lane, step + 8 * n, d));
                    mma_pair(s, n, q_fragments[d], b);
                    load_b(b, fragment_at(v_lane, step + 8 * n, d));
                    mma_pair(ds, n, full_fragments[d], b);
                }

            const int key = index * KEYS + step;
            if (key + STEP_KEYS > first_token + 1)
                mask_keys(s, first_row + warp_row, rows, key, 0x7fffffff, lane);
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const float2 row = full_row[m][i % 4 / 2];
                        float& x = ds[m][n + i / 4][i % 4];
                        x = exp2_approx(s[m][n + i / 4][i % 4] * scale - row.x) * (x - row.y);
                    }
                u32 is_selected[ROW_TILES], any = 0;
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m)
                    any |= is_selected[m] = block_is_selected(words[m], key + 8 * n);
                if (any) {
                    float sparse_ds[ROW_TILES][2][4];
                    set_zero(sparse_ds);
#pragma unroll
                    for (int d = 0; d < DEPTH_STEPS; ++d) {
                        u32 a[ROW_TILES][4], b[2][2];
                        load_b(b, fragment_at(v_lane, step + 8 * n, d));
#pragma unroll
                        for (int m = 0; m < ROW_TILES; ++m) load_a(a[m], fragment_at(sparse_lane, 16 * m, d));
                        mma_pair(sparse_ds, 0, a, b);
                    }
#pragma unroll
                    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                        for (int i = 0; i < 8; ++i) {
                            const float2 row = sparse_row[m][i % 4 / 2];
                            const float p = exp2_approx(s[m][n + i / 4][i % 4] * scale - row.x);
                            const float x = p * (sparse_ds[m][i / 4][i % 4] - row.y);
                            ds[m][n + i / 4][i % 4] += is_selected[m] ? x : 0.0f;
                        }
                }
                u32 a[ROW_TILES][4];
                to_a(a, ds, n);
#pragma unroll
                for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                    u32 b[2][2];
                    load_b_trans(b, fragment_at(k_trans_lane, step + 8 * n, d / 2));
                    mma_pair(dq_rows, d, a, b);
                }
            }
        }
    }

    // The rows of a warp in the tile of q are its own, so they can take dq.
    copy_async_wait<0>();
    __syncthreads();
    write_rows(
        shared + warp_row * ROW_BYTES, dq, dq_rows, row_index, first_row + warp_row, rows, softmax_scale, add, lane);
}
