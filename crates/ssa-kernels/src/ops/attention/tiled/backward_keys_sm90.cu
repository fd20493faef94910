// backward_keys.cu for products of warpgroups (sm_90a), HEAD_DIM 64 or 128: the same function,
// parameters and list of pieces.
//
// A warpgroup owns 64 keys. The scores of a tile of rows are computed while p and ds of the tile
// before are multiplied with its dout and q, which are, read transposed, the second operands of dv
// and dk.
//
// Given as macros: those of tile.cuh; IN_REGISTERS, 2 if k and v stay in registers, 0 if the
// products read them from shared memory; MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "params.cuh"
#include "key_tile.cuh"
#include "swizzled_tile.cuh"

using Keys = TilePair<SwizzledTile<TILE_KEYS>>;
using Stage = TilePair<SwizzledTile<TILE_ROWS>>;
constexpr int ROW_COLUMNS = TILE_ROWS / 8;
static_assert(STEP == TILE_ROWS && IN_REGISTERS != 1 && PARTS == 1, "");
// Keys and values, the ring of q and dout, the ring of row statistics.
constexpr int STATISTICS = Keys::BYTES + STAGES * (Stage::BYTES + BARRIER_BYTES);
static_assert(STATISTICS + STAGES * STATISTICS_BYTES == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_bwd_keys(const __grid_constant__ TiledAttentionBwdKeys p) {
    const KeyTile tile(p.pieces, p.inputs.kv_heads, p.inputs.window_or_block);
    const float scale = p.inputs.softmax_scale * LOG2_E;
    const float2* statistics =
        p.statistics + statistics_row(tile.kv_head, p.inputs.tokens, tile.document_start);

    const Keys key_tiles(shared_address(shared));
    const auto ring = barrier_ring<Stage>(
        key_tiles.end(), tile.row_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.q, p.dout, tile.row_index, tile.row(index), tile.rows_end);
            tile.copy_statistics(shared_address(shared) + STATISTICS, statistics, index);
        });
    ring.init();
    key_tiles.copy(p.inputs.k, p.inputs.v, tile.key_index, tile.first_key, tile.keys);
    ring.fill();

    const auto k_operand = key_tiles.first.warpgroup_operand();
    const auto v_operand = key_tiles.second.warpgroup_operand();
    u32 k_rows[DEPTH_STEPS][4], v_rows[DEPTH_STEPS][4];
    if constexpr (IN_REGISTERS) {
        if (tile.row_tiles > 0) ring.wait(0);
        key_tiles.first.load_rows(k_rows, tile.warp_key, tile.lane);
        key_tiles.second.load_rows(v_rows, tile.warp_key, tile.lane);
    }

    float s[1][ROW_COLUMNS][4], ds[1][ROW_COLUMNS][4];
    float dk_keys[1][DEPTH_COLUMNS][4], dv_keys[1][DEPTH_COLUMNS][4];
    u32 weights[ROW_COLUMNS / 2][4], dscores[ROW_COLUMNS / 2][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    // dv += P^T dout and dk += dS^T q for the tile whose p and ds are in registers.
    const auto add_tile = [&](int index) {
        const Stage stage = ring.stage(index);
        row_product(dv_keys[0], weights, stage.second.row_operand());
        row_product(dk_keys[0], dscores, stage.first.row_operand());
    };
    for (int index = 0; index < tile.row_tiles; ++index) {
        ring.wait(index);
        const Stage stage = ring.stage(index);
        wgmma_fence();
        if constexpr (IN_REGISTERS) {
            depth_product(s[0], k_rows, stage.first.depth_operand());
            depth_product(ds[0], v_rows, stage.second.depth_operand());
        } else {
            depth_product(s[0], k_operand, stage.first.depth_operand());
            depth_product(ds[0], v_operand, stage.second.depth_operand());
        }
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        ring.prefetch(index);
        wgmma_wait<1>();
        fence_registers(s[0]);
        fence_registers(ds[0]);

        tile.mask(s, tile.row(index));
        to_gradients(s, ds, tile.statistics(shared + STATISTICS, index), scale);
        wgmma_wait<0>();
        fence_registers(dk_keys[0]);
        fence_registers(dv_keys[0]);
        if (index > 0) ring.release(index - 1);
        pack_operands(weights, s[0]);
        pack_operands(dscores, ds[0]);
    }
    if (tile.row_tiles > 0) {
        wgmma_fence();
        add_tile(tile.row_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        fence_registers(dk_keys[0]);
        fence_registers(dv_keys[0]);
    }
    copy_async_wait_all();
    tile.write(p.dk, p.dv, p.partial, dk_keys, dv_keys, p.inputs.softmax_scale, 0);
}
#endif
