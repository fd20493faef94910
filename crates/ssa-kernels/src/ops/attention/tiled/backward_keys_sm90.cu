// tiled/backward_keys.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: the same function,
// arguments and list of pieces.
//
// A warpgroup owns 64 keys. The scores of a tile of rows are computed while p and ds of the tile
// before are multiplied with its dout and q, which are, read transposed, the second operands of dv
// and dk.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "key_tile.cuh"

// Given as macros: WARPGROUPS, STAGES of the ring, KEYS_IN_REGISTERS.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_KEYS = WARPGROUPS * 64;
constexpr int TILE_ROWS = 64;
constexpr int ROW_COLUMNS = TILE_ROWS / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<TILE_ROWS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 1) tiled_attention_bwd_keys(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics,
    bf16* dk, int add_dk, bf16* dv, int add_dv, float* partial,
    const int4* pieces, // key_tile.cuh
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const KeyTile<TILE_KEYS, 16, TILE_ROWS> own(pieces, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;
    statistics += statistics_row(own.kv_head, tokens, own.document_start);

    const u32 k_tile = shared_address(shared), v_tile = k_tile + TILE_BYTES<TILE_KEYS>;
    const u32 ring = v_tile + TILE_BYTES<TILE_KEYS>;
    constexpr int STATISTICS = 2 * TILE_BYTES<TILE_KEYS> + STAGES * STAGE_BYTES;
    const Ring<STAGES, THREADS> tiles_in_flight{k_tile + STATISTICS + STAGES * TILE_ROWS * 8};
    const auto copy_rows = [&](int index) {
        if (index < own.row_tiles) {
            tiles_in_flight.wait_empty(index);
            const int row = own.rows_begin + index * TILE_ROWS, stage = index % STAGES;
            const u32 q_tile = ring + stage * STAGE_BYTES;
            copy_slabs<TILE_ROWS, THREADS>(q_tile, q, own.row_index, row, own.rows_end);
            copy_slabs<TILE_ROWS, THREADS>(q_tile + TILE_BYTES<TILE_ROWS>, dout, own.row_index, row, own.rows_end);
            if (threadIdx.x < TILE_ROWS)
                copy_async8(
                    k_tile + STATISTICS + (stage * TILE_ROWS + threadIdx.x) * 8, statistics + row + threadIdx.x,
                    row + int(threadIdx.x) < own.rows_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the keys have arrived too.
    copy_slabs<TILE_KEYS, THREADS>(k_tile, k, own.key_index, own.first_key, own.keys);
    copy_slabs<TILE_KEYS, THREADS>(v_tile, v, own.key_index, own.first_key, own.keys);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_rows(i);

    const u64 k_descriptor = warpgroup_rows(k_tile), v_descriptor = warpgroup_rows(v_tile);
    u32 k_rows[DEPTH_STEPS][4], v_rows[DEPTH_STEPS][4];
    if constexpr (KEYS_IN_REGISTERS) {
        if (own.row_tiles > 0) tiles_in_flight.wait_full(0);
        load_slab_rows<TILE_KEYS>(k_rows, k_tile, own.warp_key, own.lane);
        load_slab_rows<TILE_KEYS>(v_rows, v_tile, own.warp_key, own.lane);
    }

    float s[1][ROW_COLUMNS][4], ds[1][ROW_COLUMNS][4];
    float dk_keys[1][DEPTH_COLUMNS][4], dv_keys[1][DEPTH_COLUMNS][4];
    u32 p_rows[ROW_COLUMNS / 2][4], ds_rows[ROW_COLUMNS / 2][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    // dv += P^T dout and dk += dS^T q for the tile whose p and ds are in registers.
    const auto add_tile = [&](int index) {
        const u32 q_tile = ring + index % STAGES * STAGE_BYTES;
        const u64 q_descriptor = slab_descriptor(q_tile, TILE_ROWS * 128);
        const u64 dout_descriptor = slab_descriptor(q_tile + TILE_BYTES<TILE_ROWS>, TILE_ROWS * 128);
        row_product(dv_keys[0], p_rows, dout_descriptor);
        row_product(dk_keys[0], ds_rows, q_descriptor);
    };
    for (int index = 0; index < own.row_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 q_tile = ring + index % STAGES * STAGE_BYTES;
        wgmma_fence();
        const u64 q_descriptor = slab_descriptor(q_tile, 0);
        const u64 dout_descriptor = slab_descriptor(q_tile + TILE_BYTES<TILE_ROWS>, 0);
        if constexpr (KEYS_IN_REGISTERS) {
            depth_product<TILE_ROWS>(s[0], k_rows, q_descriptor);
            depth_product<TILE_ROWS>(ds[0], v_rows, dout_descriptor);
        } else {
            depth_product<TILE_KEYS, TILE_ROWS>(s[0], k_descriptor, q_descriptor);
            depth_product<TILE_KEYS, TILE_ROWS>(ds[0], v_descriptor, dout_descriptor);
        }
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_rows(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);

        own.mask(s, own.rows_begin + index * TILE_ROWS);
        const float4* row_statistics =
            reinterpret_cast<const float4*>(shared + STATISTICS + index % STAGES * TILE_ROWS * 8) + own.lane % 4;
        to_gradients(s, ds, row_statistics, scale);
        wgmma_wait<0>();
        pin(dk_keys[0]);
        pin(dv_keys[0]);
        if (index > 0) tiles_in_flight.release(index - 1);
        pack_operands(p_rows, s[0]);
        pack_operands(ds_rows, ds[0]);
    }
    if (own.row_tiles > 0) {
        wgmma_fence();
        add_tile(own.row_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(dk_keys[0]);
        pin(dv_keys[0]);
    }
    copy_async_wait_all();
    own.write({dk, add_dk, dv, add_dv, partial}, dk_keys, dv_keys, softmax_scale, 0);
}
#endif
