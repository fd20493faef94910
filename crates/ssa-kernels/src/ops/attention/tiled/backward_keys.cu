// Backward of attention over a range of keys per query, what belongs to keys:
//
//   dv_j += sum_r p_rj dout_r, dk_j += softmax_scale sum_r ds_rj q_r (p and ds:
//   backward_queries.cu)
//
// over all rows r, tokens and heads of the group alike, that see key j. A block takes TILE_KEYS
// keys and a piece of the list of rows that see them; a warp keeps k, v, dk and dv of its keys in
// registers. Scores are computed transposed, [keys, rows], so that they are, rounded, the first
// operand of dv += P^T dout without a way through shared memory.
//
// The first keys of a document are seen by all of it: their rows are cut into pieces of about equal
// size (by the host, from shapes alone), each of which writes a partial sum in f32;
// `attention_sum_keys` adds those in order.
//
// Above 128 columns the accumulators do not fit: blockIdx.y selects a part of the columns, and
// scores are computed again.
#include "key_tile.cuh"

// Given as macros: KEY_TILES, WARPS, TILE_ROWS of a tile in shared memory and STEP_ROWS whose
// scores are in registers, whether values stay in registers beside the keys (VALUES_IN_REGISTERS),
// STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_KEYS = 16 * KEY_TILES;
constexpr int TILE_KEYS = WARPS * WARP_KEYS;
constexpr int STEP_COLUMNS = STEP_ROWS / 8;
constexpr int PARTS = DEPTH <= 128 ? 1 : 2;
constexpr int PART_STEPS = (DEPTH_STEPS + PARTS - 1) / PARTS;
constexpr bool KEYS_IN_REGISTERS = KEY_TILES * DEPTH_STEPS <= 8;
constexpr bool HOLD_VALUES = KEYS_IN_REGISTERS && VALUES_IN_REGISTERS;
// Shared memory: keys, values, the ring of q and dout tiles, the ring of row statistics.
constexpr int STAGE_BYTES = 2 * TILE_BYTES<TILE_ROWS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_bwd_keys(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics,
    bf16* dk, int add_dk, bf16* dv, int add_dv, float* partial,
    const int4* pieces, // key_tile.cuh
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const KeyTile<TILE_KEYS, WARP_KEYS, TILE_ROWS> own(pieces, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;
    const int part = PARTS == 1 ? 0 : blockIdx.y;
    statistics += statistics_row(own.kv_head, tokens, own.document_start);

    const u32 k_tile = shared_address(shared), v_tile = k_tile + TILE_BYTES<TILE_KEYS>;
    const u32 ring = v_tile + TILE_BYTES<TILE_KEYS>;
    constexpr int STATISTICS = 2 * TILE_BYTES<TILE_KEYS> + STAGES * STAGE_BYTES;
    const auto copy_rows = [&](int index) {
        const int row = own.rows_begin + index * TILE_ROWS, stage = index % STAGES;
        const u32 q_tile = ring + stage * STAGE_BYTES;
        copy_tile<TILE_ROWS, THREADS>(q_tile, q, own.row_index, row, own.rows_end);
        copy_tile<TILE_ROWS, THREADS>(q_tile + TILE_BYTES<TILE_ROWS>, dout, own.row_index, row, own.rows_end);
        for (int i = threadIdx.x; i < TILE_ROWS; i += THREADS)
            copy_async8(k_tile + STATISTICS + (stage * TILE_ROWS + i) * 8, statistics + row + i, row + i < own.rows_end);
    };
    copy_tile<TILE_KEYS, THREADS>(k_tile, k, own.key_index, own.first_key, own.keys);
    copy_tile<TILE_KEYS, THREADS>(v_tile, v, own.key_index, own.first_key, own.keys);
    fill_ring<STAGES>(own.row_tiles, copy_rows);

    const u32 k_lane = fragment_a(k_tile + own.warp_key * ROW_BYTES, own.lane);
    const u32 v_lane = fragment_a(v_tile + own.warp_key * ROW_BYTES, own.lane);
    u32 k_fragments[DEPTH_STEPS][KEY_TILES][4], v_fragments[DEPTH_STEPS][KEY_TILES][4];
    const auto load_keys = [&](u32 (&fragments)[KEY_TILES][4], u32 lane_address, int d) {
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m) load_a(fragments[m], fragment_at(lane_address, 16 * m, d));
    };
    if constexpr (KEYS_IN_REGISTERS) {
        wait_for_tile<STAGES>();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            load_keys(k_fragments[d], k_lane, d);
            if constexpr (HOLD_VALUES) load_keys(v_fragments[d], v_lane, d);
        }
    }

    float dk_keys[KEY_TILES][2 * PART_STEPS][4], dv_keys[KEY_TILES][2 * PART_STEPS][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    for (int index = 0; index < own.row_tiles; ++index) {
        advance_ring<STAGES>(index, own.row_tiles, copy_rows);

        const u32 q_tile = ring + index % STAGES * STAGE_BYTES, dout_tile = q_tile + TILE_BYTES<TILE_ROWS>;
        const u32 q_lane = fragment_b(q_tile, own.lane), dout_lane = fragment_b(dout_tile, own.lane);
        const u32 q_trans_lane = fragment_b_trans(q_tile, own.lane), dout_trans_lane = fragment_b_trans(dout_tile, own.lane);
        const float4* row_statistics =
            reinterpret_cast<const float4*>(shared + STATISTICS + index % STAGES * TILE_ROWS * 8) + own.lane % 4;
#pragma unroll
        for (int step = 0; step < TILE_ROWS; step += STEP_ROWS) {
            const int row = own.rows_begin + index * TILE_ROWS + step;
            if (own.is_unseen(row, STEP_ROWS)) continue;

            float s[KEY_TILES][STEP_COLUMNS][4], ds[KEY_TILES][STEP_COLUMNS][4];
            set_zero(s);
            set_zero(ds);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                if constexpr (!KEYS_IN_REGISTERS) load_keys(k_fragments[d], k_lane, d);
                if constexpr (!HOLD_VALUES) load_keys(v_fragments[d], v_lane, d);
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    load_b(b, fragment_at(q_lane, step + 8 * n, d));
                    mma_pair(s, n, k_fragments[d], b);
                    load_b(b, fragment_at(dout_lane, step + 8 * n, d));
                    mma_pair(ds, n, v_fragments[d], b);
                }
            }
            own.mask(s, row);
            to_gradients(s, ds, row_statistics + step / 2, scale);
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
                u32 p[KEY_TILES][4], dscores[KEY_TILES][4];
                to_a(p, s, n);
                to_a(dscores, ds, n);
#pragma unroll
                for (int d = 0; d < PART_STEPS; ++d) {
                    const int column = part * PART_STEPS + d;
                    if (DEPTH_STEPS % PARTS != 0 && column >= DEPTH_STEPS) break;
                    u32 b[2][2];
                    load_b_trans(b, fragment_at(dout_trans_lane, step + 8 * n, column));
                    mma_pair(dv_keys, 2 * d, p, b);
                    load_b_trans(b, fragment_at(q_trans_lane, step + 8 * n, column));
                    mma_pair(dk_keys, 2 * d, dscores, b);
                }
            }
        }
    }
    copy_async_wait<0>();
    own.write({dk, add_dk, dv, add_dv, partial}, dk_keys, dv_keys, softmax_scale, part * PART_STEPS * 16);
}
