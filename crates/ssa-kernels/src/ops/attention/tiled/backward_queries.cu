// Backward of attention over a range of keys per query, the gradient of queries.
//
//   delta_r = dout_r . out_r,   p_rj = e^(s_rj - lse_r),   ds_rj = p_rj (dout_r . v_j - delta_r),
//   dq_r += softmax_scale sum_j ds_rj k_j
//
// A block takes TILE_ROWS packed rows as in the forward and walks the keys; q and dout stay in
// registers where they fit, ds is, rounded, the first operand of dq += ds K. With backward_keys.cu
// this computes S and dP twice: seven products a tile instead of five, but nothing is summed
// between blocks, so no atomics and no pass over partial dq.
//
// Given as macros: those of tile.cuh; STEP, keys of a tile whose scores are in registers at a time;
// IN_REGISTERS, 2 if q and dout stay in registers, 0 if their fragments are loaded for every step;
// MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#include "params.cuh"
#include "query_tile.cuh"

using Stage = TilePair<Tile<TILE_KEYS>>;
constexpr int STEP_COLUMNS = STEP / 8;
static_assert((IN_REGISTERS == 0 || IN_REGISTERS == 2) && PARTS == 1, "");
// The rows of q (and at the end of dq) and dout, then the ring of keys and values.
static_assert(2 * Tile<TILE_ROWS>::BYTES + STAGES * Stage::BYTES == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_bwd_queries(const TiledAttentionBwdQueries p) {
    const QueryTile tile(p.tiles, p.inputs.kv_heads, p.inputs.window_or_block);
    const float scale = p.inputs.softmax_scale * LOG2_E;
    const auto first_key = [&](int index) { return tile.keys_begin + index * TILE_KEYS; };
    const TilePair<Tile<TILE_ROWS>> row_tiles(shared_address(shared));
    const auto ring = group_ring<Stage>(
        row_tiles.end(), tile.key_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.k, p.inputs.v, tile.key_index, first_key(index), tile.keys_end);
        });
    row_tiles.copy(p.inputs.q, p.dout, tile.row_index, tile.first_row, tile.rows);
    ring.fill();

    float2 row_statistics[ROW_TILES][2];
    tile.load_statistics(row_statistics, p.statistics, p.inputs.tokens);

    const FragmentsA q_rows = row_tiles.first.a(tile.warp_row, tile.lane);
    const FragmentsA dout_rows = row_tiles.second.a(tile.warp_row, tile.lane);
    u32 q_fragments[DEPTH_STEPS][ROW_TILES][4], dout_fragments[DEPTH_STEPS][ROW_TILES][4];
    const auto load_rows = [&](int d) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            q_rows.load(q_fragments[d][m], 16 * m, d);
            dout_rows.load(dout_fragments[d][m], 16 * m, d);
        }
    };
    if constexpr (IN_REGISTERS) {
        ring.wait();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) load_rows(d);
    }

    float dq_rows[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(dq_rows);
    for (int index = 0; index < tile.key_tiles; ++index) {
        ring.advance(index);

        const Stage stage = ring.stage(index);
        const FragmentsB k_columns = stage.first.b(tile.lane);
        const FragmentsB v_columns = stage.second.b(tile.lane);
        const FragmentsBTransposed k_rows = stage.first.b_transposed(tile.lane);
#pragma unroll
        for (int step = 0; step < TILE_KEYS; step += STEP) {
            float s[ROW_TILES][STEP_COLUMNS][4], ds[ROW_TILES][STEP_COLUMNS][4];
            set_zero(s);
            set_zero(ds);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                if constexpr (!IN_REGISTERS) load_rows(d);
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    k_columns.load(b, step + 8 * n, d);
                    mma_pair(s, n, q_fragments[d], b);
                    v_columns.load(b, step + 8 * n, d);
                    mma_pair(ds, n, dout_fragments[d], b);
                }
            }

            tile.mask(s, first_key(index) + step);
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const float2 row = row_statistics[m][i % 4 / 2];
                        const float score = s[m][n + i / 4][i % 4];
                        float& x = ds[m][n + i / 4][i % 4];
                        x = exp2_approx(score * scale - row.x) * (x - row.y);
                    }
                u32 dscores[ROW_TILES][4];
                to_a(dscores, ds, n);
#pragma unroll
                for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                    u32 b[2][2];
                    k_rows.load(b, step + 8 * n, d / 2);
                    mma_pair(dq_rows, d, dscores, b);
                }
            }
        }
    }

    // No other warp reads this warp's rows of the tile of q, so they can hold dq.
    copy_async_wait<0>();
    __syncthreads();
    tile.write(shared, p.dq.at, dq_rows, p.inputs.softmax_scale, p.dq.add);
}
