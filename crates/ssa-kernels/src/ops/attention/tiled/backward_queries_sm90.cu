// tiled/backward_queries.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: dq, with the same arguments and tiles list.
//
// As in forward_sm90.cu, the scores of a tile are computed while ds of the tile before is multiplied with its keys.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics, bf16* dq, int add,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const int4 tile = tiles[blockIdx.x / kv_heads];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int rows = tile.y * GROUP, first_row = tile.w;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16;

    const int last_row = min(first_row + TILE_ROWS, rows) - 1;
    const int keys_end = seen_to(last_row / GROUP, reach);
    const int keys_begin = seen_from(first_row / GROUP, reach) / KEYS * KEYS;
    const int key_tiles = (keys_end - keys_begin + KEYS - 1) / KEYS;
    const int all_see_from = seen_from((min(first_row + warp_row + 16, rows) - 1) / GROUP, reach);
    const int all_see_to = seen_to((first_row + warp_row) / GROUP, reach);

    const u32 q_tile = shared_address(shared), dout_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 ring = dout_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto copy_keys = [&](int index) {
        if (index < key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = keys_begin + index * KEYS;
            const u32 stage = ring + index % STAGES * STAGE_BYTES;
            copy_slabs<KEYS, THREADS>(stage, k, key_index, key, keys_end);
            copy_slabs<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, key, keys_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the rows have arrived too.
    copy_slabs<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
    copy_slabs<TILE_ROWS, THREADS>(dout_tile, dout, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_keys(i);

    float2 row_statistics[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
        row_statistics[half] = statistics
            [(i64(kv_head) * tokens + tile.x) * GROUP + min(first_row + warp_row + 8 * half + lane / 4, rows - 1)];

    const u32 warpgroup_rows = threadIdx.x / 128 * (64 * 128);
    const u64 q_descriptor = slab_descriptor(q_tile + warpgroup_rows, 0);
    const u64 dout_descriptor = slab_descriptor(dout_tile + warpgroup_rows, 0);
    const u32 none[1][4] = {};

    float s[1][KEY_COLUMNS][4], ds[1][KEY_COLUMNS][4], dq_rows[1][DEPTH_COLUMNS][4];
    u32 a[KEY_COLUMNS / 2][4];
    set_zero(dq_rows);
    // dq += ds K for the tile whose ds is in `a`.
    const auto add_tile = [&](int index) {
        const u64 k_descriptor = slab_descriptor(ring + index % STAGES * STAGE_BYTES, KEYS * 128);
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n)
            wgmma_rows_columns<HEAD_DIM>(dq_rows[0], a[n], row_step(k_descriptor, n));
    };
    for (int index = 0; index < key_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        wgmma_fence();
        depth_product<KEYS, TILE_ROWS, KEYS, false>(s[0], none, q_descriptor, slab_descriptor(k_tile, 0));
        depth_product<KEYS, TILE_ROWS, KEYS, false>(
            ds[0], none, dout_descriptor, slab_descriptor(k_tile + TILE_BYTES<KEYS>, 0));
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_keys(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);

        const int key = keys_begin + index * KEYS;
        if (key < all_see_from || key + KEYS > all_see_to)
            mask_keys(s, first_row + warp_row, rows, key, reach, lane);
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
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n) to_a(reinterpret_cast<u32(&)[1][4]>(a[n]), ds, 2 * n);
    }
    if (key_tiles > 0) {
        wgmma_fence();
        add_tile(key_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(dq_rows[0]);
    }

    // Products may still read the tile of q for other warps until here.
    copy_async_wait_all();
    __syncthreads();
    write_rows(
        shared + warp_row * ROW_BYTES, dq, dq_rows, row_index, first_row + warp_row, rows, softmax_scale, add, lane);
}
#endif
