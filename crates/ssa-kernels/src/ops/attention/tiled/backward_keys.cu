// Backward of attention over a range of keys per query, the gradients of keys and values:
//
//   dv_j += sum_r p_rj dout_r,   dk_j += softmax_scale sum_r ds_rj q_r
//
// with p and ds of backward_queries.cu, over all rows r that see key j, tokens and heads of the
// group alike. A block takes TILE_KEYS keys and a piece of the list of rows that see them; a warp
// keeps dk and dv of its keys in registers. Scores are computed transposed, [keys, rows], so that
// they are, rounded, the first operand of dv += P^T dout and need not go through shared memory.
//
// The first keys of a document are seen by all of it: their rows are cut into pieces of about equal
// size (by the host, from shapes alone), each of which writes a partial sum in f32;
// `attention_sum_keys` adds those in order.
//
// Above 128 columns the accumulators do not fit: blockIdx.y selects one of PARTS of the columns,
// and scores are computed again.
//
// Given as macros: those of tile.cuh; PARTS; STEP, rows of a tile whose scores are in registers at
// a time; IN_REGISTERS, 2 if k and v stay in registers, 1 if k does, 0 if the fragments of both are
// loaded for every step; MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#include "params.cuh"
#include "key_tile.cuh"

using Keys = TilePair<Tile<TILE_KEYS>>;
using Stage = TilePair<Tile<TILE_ROWS>>;
constexpr int STEP_COLUMNS = STEP / 8;
constexpr int PART_STEPS = ceil_div(DEPTH_STEPS, PARTS);
// Keys and values, the ring of q and dout, the ring of row statistics.
constexpr int STATISTICS = Keys::BYTES + STAGES * Stage::BYTES;
static_assert(STATISTICS + STAGES * STATISTICS_BYTES == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_bwd_keys(const TiledAttentionBwdKeys p) {
    const KeyTile tile(p.pieces, p.inputs.kv_heads, p.inputs.window_or_block);
    const float scale = p.inputs.softmax_scale * LOG2_E;
    const int part = PARTS == 1 ? 0 : blockIdx.y;
    const float2* statistics =
        p.statistics + statistics_row(tile.kv_head, p.inputs.tokens, tile.document_start);

    const Keys key_tiles(shared_address(shared));
    const auto ring = group_ring<Stage>(
        key_tiles.end(), tile.row_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.q, p.dout, tile.row_index, tile.row(index), tile.rows_end);
            tile.copy_statistics(shared_address(shared) + STATISTICS, statistics, index);
        });
    key_tiles.copy(p.inputs.k, p.inputs.v, tile.key_index, tile.first_key, tile.keys);
    ring.fill();

    const FragmentsA k_rows = key_tiles.first.a(tile.warp_key, tile.lane);
    const FragmentsA v_rows = key_tiles.second.a(tile.warp_key, tile.lane);
    u32 k_fragments[DEPTH_STEPS][KEY_TILES][4], v_fragments[DEPTH_STEPS][KEY_TILES][4];
    const auto load_keys = [&](u32 (&fragments)[KEY_TILES][4], const FragmentsA& rows, int d) {
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m) rows.load(fragments[m], 16 * m, d);
    };
    if constexpr (IN_REGISTERS > 0) {
        ring.wait();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            load_keys(k_fragments[d], k_rows, d);
            if constexpr (IN_REGISTERS > 1) load_keys(v_fragments[d], v_rows, d);
        }
    }

    float dk_keys[KEY_TILES][2 * PART_STEPS][4], dv_keys[KEY_TILES][2 * PART_STEPS][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    for (int index = 0; index < tile.row_tiles; ++index) {
        ring.advance(index);

        const Stage stage = ring.stage(index);
        const FragmentsB q_columns = stage.first.b(tile.lane);
        const FragmentsB dout_columns = stage.second.b(tile.lane);
        const FragmentsBTransposed q_rows = stage.first.b_transposed(tile.lane);
        const FragmentsBTransposed dout_rows = stage.second.b_transposed(tile.lane);
        const float4* row_statistics = tile.statistics(shared + STATISTICS, index);
#pragma unroll
        for (int step = 0; step < TILE_ROWS; step += STEP) {
            const int row = tile.row(index) + step;
            if (tile.is_unseen(row, STEP)) continue;

            float s[KEY_TILES][STEP_COLUMNS][4], ds[KEY_TILES][STEP_COLUMNS][4];
            set_zero(s);
            set_zero(ds);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                if constexpr (IN_REGISTERS < 1) load_keys(k_fragments[d], k_rows, d);
                if constexpr (IN_REGISTERS < 2) load_keys(v_fragments[d], v_rows, d);
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    q_columns.load(b, step + 8 * n, d);
                    mma_pair(s, n, k_fragments[d], b);
                    dout_columns.load(b, step + 8 * n, d);
                    mma_pair(ds, n, v_fragments[d], b);
                }
            }
            tile.mask(s, row);
            to_gradients(s, ds, row_statistics + step / 2, scale);
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
                u32 weights[KEY_TILES][4], dscores[KEY_TILES][4];
                to_a(weights, s, n);
                to_a(dscores, ds, n);
#pragma unroll
                for (int d = 0; d < PART_STEPS; ++d) {
                    const int column = part * PART_STEPS + d;
                    if (DEPTH_STEPS % PARTS != 0 && column >= DEPTH_STEPS) break;
                    u32 b[2][2];
                    dout_rows.load(b, step + 8 * n, column);
                    mma_pair(dv_keys, 2 * d, weights, b);
                    q_rows.load(b, step + 8 * n, column);
                    mma_pair(dk_keys, 2 * d, dscores, b);
                }
            }
        }
    }
    copy_async_wait<0>();
    tile.write(p.dk, p.dv, p.partial, dk_keys, dv_keys, p.inputs.softmax_scale,
               part * PART_STEPS * 16);
}
