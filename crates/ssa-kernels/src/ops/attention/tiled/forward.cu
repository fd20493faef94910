// Attention over a range of keys per query, forward: online softmax over key tiles (README.md of
// this folder).
//
//   out[r] = sum_j e^(s_rj - lse_r) v_j, lse_r = ln sum_j e^(s_rj), s_rj = softmax_scale q_r . k_j
//
// A block takes TILE_ROWS packed rows (attention.cuh) of one document and key/value head, a warp
// whole row tiles of 16, and walks the keys from the last to the first, so that the tiles which
// need a mask come first. Keys and values arrive by cp.async in a ring of stages. Scores,
// probabilities and outputs never leave the registers: the accumulator of S = Q K^T is, rounded,
// the first operand of O += P V.
//
// 32 rows per warp instead of 16 halve the reads of the products from shared memory, which would
// bound the kernel otherwise.
//
// Given as macros: those of tile.cuh; IN_REGISTERS, 1 if q stays in registers, 0 if its fragments
// are loaded for every tile; MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#include "params.cuh"
#include "query_tile.cuh"

using Stage = TilePair<Tile<TILE_KEYS>>;
constexpr int KEY_COLUMNS = TILE_KEYS / 8;
static_assert(STEP == TILE_KEYS && IN_REGISTERS <= 1 && PARTS == 1, "");
// The rows of q (and at the end of out), then the ring of keys and values.
static_assert(Tile<TILE_ROWS>::BYTES + STAGES * Stage::BYTES == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_fwd(const TiledAttentionFwd p) {
    const QueryTile tile(p.tiles, p.inputs.kv_heads, p.inputs.window_or_block);
    const auto first_key = [&](int index) {
        return tile.keys_begin + (tile.key_tiles - 1 - index) * TILE_KEYS;
    };
    const Tile<TILE_ROWS> q_tile{shared_address(shared)};
    const auto ring = group_ring<Stage>(
        q_tile.end(), tile.key_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.k, p.inputs.v, tile.key_index, first_key(index), tile.keys_end);
        });
    copy_rows(q_tile, p.inputs.q, tile.row_index, tile.first_row, tile.rows);
    ring.fill();

    const FragmentsA q_rows = q_tile.a(tile.warp_row, tile.lane);
    u32 q_fragments[IN_REGISTERS ? DEPTH_STEPS : 1][ROW_TILES][4];
    const auto load_q = [&](u32 (&fragments)[ROW_TILES][4], int d) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) q_rows.load(fragments[m], 16 * m, d);
    };
    if constexpr (IN_REGISTERS) {
        ring.wait();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) load_q(q_fragments[d], d);
    }

    float o[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(o);
    OnlineSoftmax<ROW_TILES, ExactMaximum> softmax(p.inputs.softmax_scale * LOG2_E);
    for (int index = 0; index < tile.key_tiles; ++index) {
        ring.advance(index);

        const Stage stage = ring.stage(index);
        const FragmentsB k_columns = stage.first.b(tile.lane);
        const FragmentsBTransposed v_rows = stage.second.b_transposed(tile.lane);
        float s[ROW_TILES][KEY_COLUMNS][4];
        set_zero(s);
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            constexpr int HELD = IN_REGISTERS ? 1 : 0;
            if constexpr (!HELD) load_q(q_fragments[0], d);
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS; n += 2) {
                u32 b[2][2];
                k_columns.load(b, 8 * n, d);
                mma_pair(s, n, q_fragments[HELD * d], b);
            }
        }

        tile.mask(s, first_key(index));
        float tile_max[ROW_TILES][2], reference[ROW_TILES][2];
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) tile_max[m][half] = lane_max<1>(s[m], half);
        softmax.advance(o, tile_max);
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) reference[m][half] = softmax.reference(m, half);

        // Exponentials are taken right before the product that uses them: they overlap with the one
        // before.
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS; n += 2) {
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    float& x = s[m][n + i / 4][i % 4];
                    x = softmax.weight(x, reference[m][i % 4 / 2]);
                    softmax.row_sum[m][i % 4 / 2] += x;
                }
            u32 weights[ROW_TILES][4];
            to_a(weights, s, n);
#pragma unroll
            for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                u32 b[2][2];
                v_rows.load(b, 8 * n, d / 2);
                mma_pair(o, d, weights, b);
            }
        }
    }

    // No other warp reads this warp's rows of the tile of q, so they can hold the output. (In a
    // block without keys the copy of q may still be in flight.)
    copy_async_wait<0>();
    __syncthreads();
    tile.finish(softmax, o, p.lse);
    tile.write(shared, p.out, o, 1.0f, 0);
}
