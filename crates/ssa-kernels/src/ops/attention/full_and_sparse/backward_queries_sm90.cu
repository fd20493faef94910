// Full and sparse attention at once, what belongs to queries, for warpgroup products (sm_90a), HEAD_DIM 64: the function and the
// arguments of backward_queries.cu, the pipeline of tiled/backward_queries_sm90.cu.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "selection.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) full_and_sparse_attention_bwd_queries(
    const bf16* q, const bf16* k, const bf16* v, const u32* selection,
    const bf16* full_dout, const float2* full_statistics, const bf16* sparse_dout, const float2* sparse_statistics,
    bf16* dq, int add,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int tokens, int kv_heads, int selection_words, float softmax_scale
) {
    const int4 tile = tiles[blockIdx.x / kv_heads];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int rows = tile.y * GROUP, first_row = tile.w;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16;

    const int keys_end = (min(first_row + TILE_ROWS, rows) - 1) / GROUP + 1;
    const int key_tiles = (keys_end + KEYS - 1) / KEYS;
    const int token = (first_row + warp_row) / GROUP, first_token = token - threadIdx.x / WARP % 4;
    const SelectedQuad selected(
        selection, selection_words, tile.x + first_token, tile.y - first_token, kv_head, kv_heads, lane);

    const u32 q_tile = shared_address(shared), full_tile = q_tile + TILE_BYTES<TILE_ROWS>;
    const u32 sparse_tile = full_tile + TILE_BYTES<TILE_ROWS>, ring = sparse_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto copy_keys = [&](int index) {
        if (index < key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = index * KEYS;
            const u32 stage = ring + index % STAGES * STAGE_BYTES;
            copy_slabs<KEYS, THREADS>(stage, k, key_index, key, keys_end);
            copy_slabs<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, key, keys_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the rows have arrived too.
    copy_slabs<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
    copy_slabs<TILE_ROWS, THREADS>(full_tile, full_dout, row_index, first_row, rows);
    copy_slabs<TILE_ROWS, THREADS>(sparse_tile, sparse_dout, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_keys(i);

    float2 full_row[2], sparse_row[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const i64 row = (i64(kv_head) * tokens + tile.x) * GROUP +
                        min(first_row + warp_row + 8 * half + lane / 4, rows - 1);
        full_row[half] = full_statistics[row];
        sparse_row[half] = sparse_statistics[row];
    }

    const u32 warpgroup_rows = threadIdx.x / 128 * (64 * 128);
    const u64 q_descriptor = slab_descriptor(q_tile + warpgroup_rows, 0);
    const u64 full_descriptor = slab_descriptor(full_tile + warpgroup_rows, 0);
    const u64 sparse_descriptor = slab_descriptor(sparse_tile + warpgroup_rows, 0);
    u32 bits = selected.load(0, KEYS);

    float s[1][KEY_COLUMNS][4], ds[1][KEY_COLUMNS][4], sparse_ds[1][KEY_COLUMNS][4], dq_rows[1][DEPTH_COLUMNS][4];
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
        const u32 any = __reduce_or_sync(ALL_LANES, bits), own = __shfl_sync(ALL_LANES, bits, threadIdx.x / WARP % 4);
        bits = selected.load(min(index + 1, key_tiles - 1) * KEYS, KEYS);
        const u64 k_descriptor = slab_descriptor(k_tile, 0), v_descriptor = slab_descriptor(k_tile + TILE_BYTES<KEYS>, 0);
        const u32 none[1][4] = {};
        wgmma_fence();
        depth_product<KEYS, TILE_ROWS, KEYS, false>(s[0], none, q_descriptor, k_descriptor);
        depth_product<KEYS, TILE_ROWS, KEYS, false>(ds[0], none, full_descriptor, v_descriptor);
        if (any) depth_product<KEYS, TILE_ROWS, KEYS, false>(sparse_ds[0], none, sparse_descriptor, v_descriptor);
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_keys(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);
        pin(sparse_ds[0]);

        const int key = index * KEYS;
        if (key + KEYS > token + 1) mask_keys(s, first_row + warp_row, rows, key, 0x7fffffff, lane);
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                ds[0][n][i] =
                    exp2_approx(s[0][n][i] * scale - full_row[i / 2].x) * (ds[0][n][i] - full_row[i / 2].y);
        if (own) {
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS; ++n)
                if (own >> (8 * n / BLOCK_SIZE) & 1) {
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        ds[0][n][i] += exp2_approx(s[0][n][i] * scale - sparse_row[i / 2].x) *
                                       (sparse_ds[0][n][i] - sparse_row[i / 2].y);
                }
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
    copy_async_wait<0>();
    __syncthreads();
    write_rows(
        shared + warp_row * ROW_BYTES, dq, dq_rows, row_index, first_row + warp_row, rows, softmax_scale, add, lane);
}
#endif
