// Backward of attention over a range of keys per query, what belongs to queries.
//
//   delta_r = dout_r . out_r,   p_rj = e^(s_rj - lse_r),   ds_rj = p_rj (dout_r . v_j - delta_r),
//   dq_r += softmax_scale sum_j ds_rj k_j
//
// A block takes TILE_ROWS packed rows as in the forward and walks the keys; q and dout stay in registers where they fit, ds
// is, rounded, the first operand of dq += ds K. With backward_keys.cu this computes S and dP twice: seven products a
// tile instead of five, but nothing is summed between blocks, so no atomics and no pass over partial dq.
#include "attention.cuh"

// Given as macros: ROW_TILES, WARPS, KEYS of a tile in shared memory and STEP_KEYS whose scores are in registers, STAGES of
// the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int TILE_ROWS = WARPS * WARP_ROWS;
constexpr int STEP_COLUMNS = STEP_KEYS / 8;
constexpr int DEPTH_COLUMNS = DEPTH / 8;
constexpr int DEPTH_STEPS = DEPTH / 16;
constexpr bool ROWS_IN_REGISTERS = ROW_TILES * DEPTH_STEPS <= 8;
// Shared memory: the rows of q (and at the end of dq), those of dout, then the ring of key and value tiles.
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics, bf16* dq, int add,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const int4 tile = tiles[blockIdx.x / kv_heads];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int rows = tile.y * GROUP, first_row = tile.w;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * WARP_ROWS;

    const int last_row = min(first_row + TILE_ROWS, rows) - 1;
    const int keys_end = seen_to(last_row / GROUP, reach);
    const int keys_begin = seen_from(first_row / GROUP, reach) / KEYS * KEYS;
    const int key_tiles = (keys_end - keys_begin + KEYS - 1) / KEYS;
    const int warp_last_row = min(first_row + warp_row + WARP_ROWS, rows) - 1;
    // Keys outside this range are behind a border for some row of the warp.
    const int all_see_from = seen_from(warp_last_row / GROUP, reach);
    const int all_see_to = seen_to((first_row + warp_row) / GROUP, reach);

    const u32 q_tile = shared_address(shared), dout_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 ring = dout_tile + TILE_BYTES<TILE_ROWS>;
    const auto copy_keys = [&](int index) {
        const int key = keys_begin + index * KEYS;
        const u32 stage = ring + index % STAGES * STAGE_BYTES;
        copy_tile<KEYS, THREADS>(stage, k, key_index, key, keys_end);
        copy_tile<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, key, keys_end);
    };
    copy_tile<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
    copy_tile<TILE_ROWS, THREADS>(dout_tile, dout, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (i < key_tiles) copy_keys(i);
        copy_async_commit();
    }

    float2 row_statistics[ROW_TILES][2];
    statistics += (i64(kv_head) * tokens + tile.x) * GROUP;
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row_statistics[m][half] = statistics[min(first_row + warp_row + 16 * m + 8 * half + lane / 4, rows - 1)];

    const u32 q_lane = fragment_a(q_tile + warp_row * ROW_BYTES, lane);
    const u32 dout_lane = fragment_a(dout_tile + warp_row * ROW_BYTES, lane);
    u32 q_fragments[DEPTH_STEPS][ROW_TILES][4], dout_fragments[DEPTH_STEPS][ROW_TILES][4];
    const auto load_rows = [&](int d) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            load_a(q_fragments[d][m], fragment_at(q_lane, 16 * m, d));
            load_a(dout_fragments[d][m], fragment_at(dout_lane, 16 * m, d));
        }
    };
    if constexpr (ROWS_IN_REGISTERS) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) load_rows(d);
    }

    float dq_rows[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(dq_rows);
    for (int index = 0; index < key_tiles; ++index) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (index + STAGES - 1 < key_tiles) copy_keys(index + STAGES - 1);
        copy_async_commit();

        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 k_lane = fragment_b(k_tile, lane), v_lane = fragment_b(k_tile + TILE_BYTES<KEYS>, lane);
        const u32 k_trans_lane = fragment_b_trans(k_tile, lane);
#pragma unroll
        for (int step = 0; step < KEYS; step += STEP_KEYS) {
            float s[ROW_TILES][STEP_COLUMNS][4], ds[ROW_TILES][STEP_COLUMNS][4];
            set_zero(s);
            set_zero(ds);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                if constexpr (!ROWS_IN_REGISTERS) load_rows(d);
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    load_b(b, fragment_at(k_lane, step + 8 * n, d));
                    mma_pair(s, n, q_fragments[d], b);
                    load_b(b, fragment_at(v_lane, step + 8 * n, d));
                    mma_pair(ds, n, dout_fragments[d], b);
                }
            }

            const int key = keys_begin + index * KEYS + step;
            if (key < all_see_from || key + STEP_KEYS > all_see_to)
                mask_keys(s, first_row + warp_row, rows, key, reach, lane);
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const float2 row = row_statistics[m][i % 4 / 2];
                        float& x = ds[m][n + i / 4][i % 4];
                        x = exp2_approx(s[m][n + i / 4][i % 4] * scale - row.x) * (x - row.y);
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
