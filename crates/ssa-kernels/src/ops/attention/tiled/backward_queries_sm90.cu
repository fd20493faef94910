// backward_queries.cu for products of warpgroups (sm_90a), HEAD_DIM 64 or 128: the same function,
// parameters and list of tiles.
//
// As in forward_sm90.cu, the scores of a tile are computed while ds of the tile before is
// multiplied with its keys.
//
// Given as macros: those of tile.cuh; MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "params.cuh"
#include "query_tile.cuh"
#include "swizzled_tile.cuh"

using Rows = TilePair<SwizzledTile<TILE_ROWS>>;
using Stage = TilePair<SwizzledTile<TILE_KEYS>>;
constexpr int KEY_COLUMNS = TILE_KEYS / 8;
static_assert(STEP == TILE_KEYS && IN_REGISTERS == 0 && PARTS == 1, "");
// The rows of q (and at the end of dq) and dout, then the ring of keys and values.
static_assert(Rows::BYTES + STAGES * (Stage::BYTES + BARRIER_BYTES) == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_bwd_queries(const __grid_constant__ TiledAttentionBwdQueries p) {
    const QueryTile tile(p.tiles, p.inputs.kv_heads, p.inputs.window_or_block);
    const float scale = p.inputs.softmax_scale * LOG2_E;
    const auto first_key = [&](int index) { return tile.keys_begin + index * TILE_KEYS; };
    const Rows row_tiles(shared_address(shared));
    const auto ring = barrier_ring<Stage>(
        row_tiles.end(), tile.key_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.k, p.inputs.v, tile.key_index, first_key(index), tile.keys_end);
        });
    ring.init();
    row_tiles.copy(p.inputs.q, p.dout, tile.row_index, tile.first_row, tile.rows);
    ring.fill();

    float2 row_statistics[1][2];
    tile.load_statistics(row_statistics, p.statistics, p.inputs.tokens);

    const auto q_operand = row_tiles.first.warpgroup_operand();
    const auto dout_operand = row_tiles.second.warpgroup_operand();
    float s[1][KEY_COLUMNS][4], ds[1][KEY_COLUMNS][4], dq_rows[1][DEPTH_COLUMNS][4];
    u32 dscores[KEY_COLUMNS / 2][4];
    set_zero(dq_rows);
    // dq += ds K for the tile whose ds is in `dscores`.
    const auto add_tile = [&](int index) {
        row_product(dq_rows[0], dscores, ring.stage(index).first.row_operand());
    };
    for (int index = 0; index < tile.key_tiles; ++index) {
        ring.wait(index);
        const Stage stage = ring.stage(index);
        wgmma_fence();
        depth_product(s[0], q_operand, stage.first.depth_operand());
        depth_product(ds[0], dout_operand, stage.second.depth_operand());
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        ring.prefetch(index);
        wgmma_wait<1>();
        fence_registers(s[0]);
        fence_registers(ds[0]);

        tile.mask(s, first_key(index));
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float2 row = row_statistics[0][i / 2];
                ds[0][n][i] = exp2_approx(s[0][n][i] * scale - row.x) * (ds[0][n][i] - row.y);
            }
        wgmma_wait<0>();
        fence_registers(dq_rows[0]);
        if (index > 0) ring.release(index - 1);
        pack_operands(dscores, ds[0]);
    }
    if (tile.key_tiles > 0) {
        wgmma_fence();
        add_tile(tile.key_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        fence_registers(dq_rows[0]);
    }

    // Products may still read the tile of q for other warps until here.
    copy_async_wait_all();
    __syncthreads();
    tile.write(shared, p.dq.at, dq_rows, p.inputs.softmax_scale, p.dq.add);
}
#endif
