// tiled/backward_queries.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: dq, with the same
// arguments and tiles list.
//
// As in forward_sm90.cu, the scores of a tile are computed while ds of the tile before is
// multiplied with its keys.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "query_tile.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics, bf16* dq, int add,
    const int4* tiles, // query_tile.cuh
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const QueryTile<TILE_ROWS, 16, KEYS> own(tiles, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;

    const u32 q_tile = shared_address(shared), dout_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 ring = dout_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto copy_keys = [&](int index) {
        if (index < own.key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = own.keys_begin + index * KEYS;
            const u32 stage = ring + index % STAGES * STAGE_BYTES;
            copy_slabs<KEYS, THREADS>(stage, k, own.key_index, key, own.keys_end);
            copy_slabs<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, own.key_index, key, own.keys_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the rows have arrived too.
    copy_slabs<TILE_ROWS, THREADS>(q_tile, q, own.row_index, own.first_row, own.rows);
    copy_slabs<TILE_ROWS, THREADS>(dout_tile, dout, own.row_index, own.first_row, own.rows);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_keys(i);

    float2 row_statistics[2];
    statistics += statistics_row(own.kv_head, tokens, own.document_start);
#pragma unroll
    for (int half = 0; half < 2; ++half)
        row_statistics[half] = statistics[min(own.warp_first_row() + 8 * half + own.lane / 4, own.rows - 1)];

    const u64 q_descriptor = warpgroup_rows(q_tile), dout_descriptor = warpgroup_rows(dout_tile);

    float s[1][KEY_COLUMNS][4], ds[1][KEY_COLUMNS][4], dq_rows[1][DEPTH_COLUMNS][4];
    u32 a[KEY_COLUMNS / 2][4];
    set_zero(dq_rows);
    // dq += ds K for the tile whose ds is in `a`.
    const auto add_tile = [&](int index) {
        const u64 k_descriptor = slab_descriptor(ring + index % STAGES * STAGE_BYTES, KEYS * 128);
        row_product(dq_rows[0], a, k_descriptor);
    };
    for (int index = 0; index < own.key_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        wgmma_fence();
        depth_product<TILE_ROWS, KEYS>(s[0], q_descriptor, slab_descriptor(k_tile, 0));
        depth_product<TILE_ROWS, KEYS>(ds[0], dout_descriptor, slab_descriptor(k_tile + TILE_BYTES<KEYS>, 0));
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_keys(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);

        own.mask(s, own.keys_begin + index * KEYS);
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float2 row = row_statistics[i / 2];
                ds[0][n][i] = exp2_approx(s[0][n][i] * scale - row.x) * (ds[0][n][i] - row.y);
            }
        wgmma_wait<0>();
        pin(dq_rows[0]);
        if (index > 0) tiles_in_flight.release(index - 1);
        pack_operands(a, ds[0]);
    }
    if (own.key_tiles > 0) {
        wgmma_fence();
        add_tile(own.key_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(dq_rows[0]);
    }

    // Products may still read the tile of q for other warps until here.
    copy_async_wait_all();
    __syncthreads();
    own.write(shared, dq, dq_rows, softmax_scale, add);
}
#endif
