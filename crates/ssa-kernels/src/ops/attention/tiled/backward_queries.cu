// Backward of attention over a range of keys per query, what belongs to queries.
//
//   delta_r = dout_r . out_r,   p_rj = e^(s_rj - lse_r),   ds_rj = p_rj (dout_r . v_j - delta_r),
//   dq_r += softmax_scale sum_j ds_rj k_j
//
// A block takes TILE_ROWS packed rows as in the forward and walks the keys; q and dout stay in
// registers where they fit, ds is, rounded, the first operand of dq += ds K. With backward_keys.cu
// this computes S and dP twice: seven products a tile instead of five, but nothing is summed
// between blocks, so no atomics and no pass over partial dq.
#include "query_tile.cuh"

// Given as macros: ROW_TILES, WARPS, KEYS of a tile in shared memory and STEP_KEYS whose scores are
// in registers, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int TILE_ROWS = WARPS * WARP_ROWS;
constexpr int STEP_COLUMNS = STEP_KEYS / 8;
constexpr bool ROWS_IN_REGISTERS = ROW_TILES * DEPTH_STEPS <= 8;
// Shared memory: the rows of q (and at the end of dq), those of dout, then the ring of key and
// value tiles.
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics, bf16* dq, int add,
    const int4* tiles, // query_tile.cuh
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const QueryTile<TILE_ROWS, WARP_ROWS, KEYS> own(tiles, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;

    const u32 q_tile = shared_address(shared), dout_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 ring = dout_tile + TILE_BYTES<TILE_ROWS>;
    const auto copy_keys = [&](int index) {
        const int key = own.keys_begin + index * KEYS;
        const u32 stage = ring + index % STAGES * STAGE_BYTES;
        copy_tile<KEYS, THREADS>(stage, k, own.key_index, key, own.keys_end);
        copy_tile<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, own.key_index, key, own.keys_end);
    };
    copy_tile<TILE_ROWS, THREADS>(q_tile, q, own.row_index, own.first_row, own.rows);
    copy_tile<TILE_ROWS, THREADS>(dout_tile, dout, own.row_index, own.first_row, own.rows);
    fill_ring<STAGES>(own.key_tiles, copy_keys);

    float2 row_statistics[ROW_TILES][2];
    statistics += statistics_row(own.kv_head, tokens, own.document_start);
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row_statistics[m][half] = statistics[min(own.warp_first_row() + 16 * m + 8 * half + own.lane / 4, own.rows - 1)];

    const u32 q_lane = fragment_a(q_tile + own.warp_row * ROW_BYTES, own.lane);
    const u32 dout_lane = fragment_a(dout_tile + own.warp_row * ROW_BYTES, own.lane);
    u32 q_fragments[DEPTH_STEPS][ROW_TILES][4], dout_fragments[DEPTH_STEPS][ROW_TILES][4];
    const auto load_rows = [&](int d) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            load_a(q_fragments[d][m], fragment_at(q_lane, 16 * m, d));
            load_a(dout_fragments[d][m], fragment_at(dout_lane, 16 * m, d));
        }
    };
    if constexpr (ROWS_IN_REGISTERS) {
        wait_for_tile<STAGES>();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) load_rows(d);
    }

    float dq_rows[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(dq_rows);
    for (int index = 0; index < own.key_tiles; ++index) {
        advance_ring<STAGES>(index, own.key_tiles, copy_keys);

        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 k_lane = fragment_b(k_tile, own.lane), v_lane = fragment_b(k_tile + TILE_BYTES<KEYS>, own.lane);
        const u32 k_trans_lane = fragment_b_trans(k_tile, own.lane);
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

            own.mask(s, own.keys_begin + index * KEYS + step);
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
    own.write(shared, dq, dq_rows, softmax_scale, add);
}
