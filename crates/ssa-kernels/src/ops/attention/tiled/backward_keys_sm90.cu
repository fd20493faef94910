// tiled/backward_keys.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: the same function, arguments and list of pieces.
//
// A warpgroup owns 64 keys. The scores of a tile of rows are computed while p and ds of the tile before are multiplied with
// its dout and q, which are, read transposed, the second operands of dv and dk.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"

// Given as macros: WARPGROUPS, STAGES of the ring, KEYS_IN_REGISTERS.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_KEYS = WARPGROUPS * 64;
constexpr int TILE_ROWS = 64;
constexpr int ROW_COLUMNS = TILE_ROWS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<TILE_ROWS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 1) tiled_attention_bwd_keys(
    const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float2* statistics,
    bf16* dk, int add_dk, bf16* dv, int add_dv, float* partial,
    const int4* pieces, // as in backward_keys.cu
    int tokens, int kv_heads, int reach, float softmax_scale
) {
    const int4 tile = pieces[blockIdx.x / kv_heads * 2], piece = pieces[blockIdx.x / kv_heads * 2 + 1];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int first_key = tile.w, keys = piece.w, rows_begin = piece.x, rows_end = piece.y;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_key = threadIdx.x / WARP * 16;
    const int row_tiles = (rows_end - rows_begin + TILE_ROWS - 1) / TILE_ROWS;
    statistics += (i64(kv_head) * tokens + tile.x) * GROUP;

    const u32 k_tile = shared_address(shared), v_tile = k_tile + TILE_BYTES<TILE_KEYS>;
    const u32 ring = v_tile + TILE_BYTES<TILE_KEYS>;
    constexpr int STATISTICS = 2 * TILE_BYTES<TILE_KEYS> + STAGES * STAGE_BYTES;
    const Ring<STAGES, THREADS> tiles_in_flight{k_tile + STATISTICS + STAGES * TILE_ROWS * 8};
    const auto copy_rows = [&](int index) {
        if (index < row_tiles) {
            tiles_in_flight.wait_empty(index);
            const int row = rows_begin + index * TILE_ROWS, stage = index % STAGES;
            const u32 q_tile = ring + stage * STAGE_BYTES;
            copy_slabs<TILE_ROWS, THREADS>(q_tile, q, row_index, row, rows_end);
            copy_slabs<TILE_ROWS, THREADS>(q_tile + TILE_BYTES<TILE_ROWS>, dout, row_index, row, rows_end);
            if (threadIdx.x < TILE_ROWS)
                copy_async8(
                    k_tile + STATISTICS + (stage * TILE_ROWS + threadIdx.x) * 8, statistics + row + threadIdx.x,
                    row + int(threadIdx.x) < rows_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the keys have arrived too.
    copy_slabs<TILE_KEYS, THREADS>(k_tile, k, key_index, first_key, keys);
    copy_slabs<TILE_KEYS, THREADS>(v_tile, v, key_index, first_key, keys);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_rows(i);

    const u32 warpgroup_keys = threadIdx.x / 128 * (64 * 128);
    const u64 k_descriptor = slab_descriptor(k_tile + warpgroup_keys, 0);
    const u64 v_descriptor = slab_descriptor(v_tile + warpgroup_keys, 0);
    u32 k_rows[KEYS_IN_REGISTERS ? HEAD_DIM / 16 : 1][4], v_rows[KEYS_IN_REGISTERS ? HEAD_DIM / 16 : 1][4];
    if constexpr (KEYS_IN_REGISTERS) {
        if (row_tiles > 0) tiles_in_flight.wait_full(0);
        load_slab_rows<TILE_KEYS>(k_rows, k_tile, warp_key, lane);
        load_slab_rows<TILE_KEYS>(v_rows, v_tile, warp_key, lane);
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
#pragma unroll
        for (int n = 0; n < ROW_COLUMNS / 2; ++n)
            wgmma_rows_columns<HEAD_DIM>(dv_keys[0], p_rows[n], row_step(dout_descriptor, n));
#pragma unroll
        for (int n = 0; n < ROW_COLUMNS / 2; ++n)
            wgmma_rows_columns<HEAD_DIM>(dk_keys[0], ds_rows[n], row_step(q_descriptor, n));
    };
    const int warp_first_key = first_key + warp_key;
    for (int index = 0; index < row_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 q_tile = ring + index % STAGES * STAGE_BYTES;
        wgmma_fence();
        depth_product<TILE_ROWS, TILE_KEYS, TILE_ROWS, KEYS_IN_REGISTERS>(
            s[0], k_rows, k_descriptor, slab_descriptor(q_tile, 0));
        depth_product<TILE_ROWS, TILE_KEYS, TILE_ROWS, KEYS_IN_REGISTERS>(
            ds[0], v_rows, v_descriptor, slab_descriptor(q_tile + TILE_BYTES<TILE_ROWS>, 0));
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_rows(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);

        const int row = rows_begin + index * TILE_ROWS;
        if (warp_first_key + 16 > seen_to(row / GROUP, reach) ||
            warp_first_key < seen_from((row + TILE_ROWS - 1) / GROUP, reach)) {
#pragma unroll
            for (int n = 0; n < ROW_COLUMNS; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int position = (row + 8 * n + lane % 4 * 2 + i) / GROUP;
                    const int from = seen_from(position, reach), to = seen_to(position, reach);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int key = warp_first_key + 8 * half + lane / 4;
                        if (key < from || key >= to) s[0][n][2 * half + i] = -infinity();
                    }
                }
        }
        const float4* row_statistics =
            reinterpret_cast<const float4*>(shared + STATISTICS + index % STAGES * TILE_ROWS * 8) + lane % 4;
#pragma unroll
        for (int n = 0; n < ROW_COLUMNS; ++n) {
            // lse / ln 2 and delta of the two rows that are this lane's columns.
            const float4 pair = row_statistics[4 * n];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float &p = s[0][n][i], &x = ds[0][n][i];
                p = exp2_approx(p * scale - (i % 2 ? pair.z : pair.x));
                x = p * (x - (i % 2 ? pair.w : pair.y));
            }
        }
        wgmma_wait<0>();
        pin(dk_keys[0]);
        pin(dv_keys[0]);
        if (index > 0) tiles_in_flight.release(index - 1);
#pragma unroll
        for (int n = 0; n < ROW_COLUMNS / 2; ++n) {
            to_a(reinterpret_cast<u32(&)[1][4]>(p_rows[n]), s, 2 * n);
            to_a(reinterpret_cast<u32(&)[1][4]>(ds_rows[n]), ds, 2 * n);
        }
    }
    if (row_tiles > 0) {
        wgmma_fence();
        add_tile(row_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(dk_keys[0]);
        pin(dv_keys[0]);
    }
    copy_async_wait_all();
    write_keys<TILE_KEYS>(
        dk_keys, dv_keys, dk, add_dk, dv, add_dv, partial, piece.z, key_index, kv_head, kv_heads, first_key, warp_key, keys,
        softmax_scale, 0, lane);
}
#endif
