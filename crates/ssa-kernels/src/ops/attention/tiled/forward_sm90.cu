// forward.cu for products of warpgroups (sm_90a), HEAD_DIM 64 or 128: the same function, parameters
// and list of tiles.
//
// Q, K and V are read from shared memory by the tensor cores, 64 packed rows per warpgroup. The
// scores of a tile are computed while the probabilities of the tile before are multiplied with its
// values, and the exponentials of one warpgroup overlap with the products of the others.
//
// Given as macros: those of tile.cuh; MIN_BLOCKS of a multiprocessor; SHARED_BYTES of a block.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "params.cuh"
#include "query_tile.cuh"
#include "swizzled_tile.cuh"

using Stage = TilePair<SwizzledTile<TILE_KEYS>>;
constexpr int KEY_COLUMNS = TILE_KEYS / 8;
static_assert(STEP == TILE_KEYS && IN_REGISTERS == 0 && PARTS == 1, "");
// The rows of q (and at the end of out), then the ring of keys and values.
static_assert(Tile<TILE_ROWS>::BYTES + STAGES * (Stage::BYTES + BARRIER_BYTES) == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
tiled_attention_fwd(const __grid_constant__ TiledAttentionFwd p) {
    const QueryTile tile(p.tiles, p.inputs.kv_heads, p.inputs.window_or_block);
    const auto first_key = [&](int index) {
        return tile.keys_begin + (tile.key_tiles - 1 - index) * TILE_KEYS;
    };
    const SwizzledTile<TILE_ROWS> q_tile{shared_address(shared)};
    const auto ring = barrier_ring<Stage>(
        q_tile.end(), tile.key_tiles, [&](const Stage& stage, int index) {
            stage.copy(p.inputs.k, p.inputs.v, tile.key_index, first_key(index), tile.keys_end);
        });
    ring.init();
    copy_rows(q_tile, p.inputs.q, tile.row_index, tile.first_row, tile.rows);
    ring.fill();

    const auto q_operand = q_tile.warpgroup_operand();
    float s[1][KEY_COLUMNS][4], o[1][DEPTH_COLUMNS][4];
    u32 weights[KEY_COLUMNS / 2][4];
    set_zero(o);
    OnlineSoftmax<1, ExactMaximum> softmax(p.inputs.softmax_scale * LOG2_E);
    // o += P V for the tile whose probabilities are in `weights`.
    const auto add_tile = [&](int index) {
        row_product(o[0], weights, ring.stage(index).second.row_operand());
    };
    for (int index = 0; index < tile.key_tiles; ++index) {
        ring.wait(index);
        wgmma_fence();
        depth_product(s[0], q_operand, ring.stage(index).first.depth_operand());
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        ring.prefetch(index);
        wgmma_wait<1>();
        fence_registers(s[0]);

        tile.mask(s, first_key(index));
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Four partial maxima and sums: in a single chain, each operation would wait for the
            // one before it.
            factor[half] = softmax.raise(0, half, quad_max(lane_max<4>(s[0], half)));
            const float reference = softmax.reference(0, half);
            float sum[4] = {};
#pragma unroll
            for (int i = 0; i < 2 * KEY_COLUMNS; ++i) {
                float& score = s[0][i / 2][2 * half + i % 2];
                score = softmax.weight(score, reference);
                sum[i % 4] += score;
            }
            const float tile_sum = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            softmax.row_sum[0][half] = softmax.row_sum[0][half] * factor[half] + tile_sum;
        }

        wgmma_wait<0>();
        fence_registers(o[0]);
        if (index > 0) ring.release(index - 1);
        if (__any_sync(ALL_LANES, factor[0] != 1.0f || factor[1] != 1.0f)) {
            scale_row(o[0], 0, factor[0]);
            scale_row(o[0], 1, factor[1]);
        }
        pack_operands(weights, s[0]);
    }
    if (tile.key_tiles > 0) {
        wgmma_fence();
        add_tile(tile.key_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        fence_registers(o[0]);
    }

    // Products may still read the tile of q for other warps until here.
    copy_async_wait_all();
    __syncthreads();
    tile.finish(softmax, o, p.lse);
    tile.write(shared, p.out, o, 1.0f, 0);
}
#endif
