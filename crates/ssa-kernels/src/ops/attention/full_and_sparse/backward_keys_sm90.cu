// Full and sparse attention at once, what belongs to keys, for warpgroup products (sm_90a), HEAD_DIM 64: the function and the
// arguments of backward_keys.cu, the pipeline of tiled/backward_keys_sm90.cu.
//
// A tile of rows is four tokens and a warp 16 keys, of one block: whether a token selected them is one bit a warp.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "selection.cuh"

// Given as macros: WARPGROUPS, STAGES of the ring.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_KEYS = WARPGROUPS * 64;
constexpr int TILE_ROWS = 64;
constexpr int ROW_COLUMNS = TILE_ROWS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int STAGE_BYTES = 3 * TILE_BYTES<TILE_ROWS>;
constexpr int STAGE_STATISTICS = 2 * TILE_ROWS * 8;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 1) full_and_sparse_attention_bwd_keys(
    const bf16* q, const bf16* k, const bf16* v, const u32* selection,
    const bf16* full_dout, const float2* full_statistics, const bf16* sparse_dout, const float2* sparse_statistics,
    bf16* dk, int add_dk, bf16* dv, int add_dv, float* partial,
    const int4* pieces, // as in tiled/backward_keys.cu
    int tokens, int kv_heads, int selection_words, float softmax_scale
) {
    const int4 tile = pieces[blockIdx.x / kv_heads * 2], piece = pieces[blockIdx.x / kv_heads * 2 + 1];
    const int kv_head = blockIdx.x % kv_heads;
    const float scale = softmax_scale * LOG2_E;
    const int first_key = tile.w, keys = piece.w, rows_begin = piece.x, rows_end = piece.y;
    const PackedRows row_index(tile.x, kv_head, kv_heads);
    const KeyRows key_index(tile.z, kv_head, kv_heads);
    const int lane = threadIdx.x % WARP, warp_key = threadIdx.x / WARP * 16;
    const int row_tiles = (rows_end - rows_begin + TILE_ROWS - 1) / TILE_ROWS;
    const i64 first_statistics = (i64(kv_head) * tokens + tile.x) * GROUP;

    const u32 k_tile = shared_address(shared), v_tile = k_tile + TILE_BYTES<TILE_KEYS>;
    const u32 ring = v_tile + TILE_BYTES<TILE_KEYS>;
    constexpr int STATISTICS = 2 * TILE_BYTES<TILE_KEYS> + STAGES * STAGE_BYTES;
    const Ring<STAGES, THREADS> tiles_in_flight{k_tile + STATISTICS + STAGES * STAGE_STATISTICS};
    const auto copy_rows = [&](int index) {
        if (index < row_tiles) {
            tiles_in_flight.wait_empty(index);
            const int row = rows_begin + index * TILE_ROWS, stage = index % STAGES;
            const u32 q_tile = ring + stage * STAGE_BYTES;
            copy_slabs<TILE_ROWS, THREADS>(q_tile, q, row_index, row, rows_end);
            copy_slabs<TILE_ROWS, THREADS>(q_tile + TILE_BYTES<TILE_ROWS>, full_dout, row_index, row, rows_end);
            copy_slabs<TILE_ROWS, THREADS>(q_tile + 2 * TILE_BYTES<TILE_ROWS>, sparse_dout, row_index, row, rows_end);
            if (threadIdx.x < 2 * TILE_ROWS) {
                const float2* source = threadIdx.x < TILE_ROWS ? full_statistics : sparse_statistics;
                const int r = row + threadIdx.x % TILE_ROWS;
                copy_async8(
                    k_tile + STATISTICS + stage * STAGE_STATISTICS + threadIdx.x * 8, source + first_statistics + r,
                    r < rows_end);
            }
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
    const u32 none[1][4] = {};

    float s[1][ROW_COLUMNS][4], ds[1][ROW_COLUMNS][4], sparse_ds[1][ROW_COLUMNS][4];
    float dk_keys[1][DEPTH_COLUMNS][4], dv_keys[1][DEPTH_COLUMNS][4];
    u32 p_rows[ROW_COLUMNS / 2][4], sparse_p_rows[ROW_COLUMNS / 2][4], ds_rows[ROW_COLUMNS / 2][4];
    set_zero(dk_keys);
    set_zero(dv_keys);
    // Whether any of the four tokens of the tile before selected any block of the warpgroup's keys.
    u32 any_before = 0;
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
        if (any_before) {
            const u64 sparse_descriptor = slab_descriptor(q_tile + 2 * TILE_BYTES<TILE_ROWS>, TILE_ROWS * 128);
#pragma unroll
            for (int n = 0; n < ROW_COLUMNS / 2; ++n)
                wgmma_rows_columns<HEAD_DIM>(dv_keys[0], sparse_p_rows[n], row_step(sparse_descriptor, n));
        }
    };
    const int warp_first_key = first_key + warp_key, warpgroup_first_key = first_key + threadIdx.x / 128 * 64;
    // Words of the token that this lane looks after, of the blocks of the warpgroup's keys.
    const u32* const token_words = selection + (i64(tile.x) * kv_heads + kv_head) * selection_words +
                                   warpgroup_first_key / BLOCK_SIZE / 32;
    constexpr u32 BLOCKS_MASK = (1u << (64 < BLOCK_SIZE ? 1 : 64 / BLOCK_SIZE)) - 1;
    const auto load_bits = [&](int index) {
        const int row = rows_begin + index * TILE_ROWS + lane % 4 * GROUP;
        if (row >= rows_end || warpgroup_first_key >= keys) return 0u;
        const u32 word = __ldg(token_words + i64(row / GROUP) * kv_heads * selection_words);
        return word >> (warpgroup_first_key / BLOCK_SIZE % 32) & BLOCKS_MASK;
    };
    u32 bits = load_bits(0);
    for (int index = 0; index < row_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 q_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 any = __reduce_or_sync(ALL_LANES, bits);
        // Bit t: token t selected the block of this warp's keys.
        const u32 own = __ballot_sync(ALL_LANES, bits >> (warp_key % 64 / BLOCK_SIZE) & 1);
        bits = load_bits(index + 1);
        const u64 full_descriptor = slab_descriptor(q_tile + TILE_BYTES<TILE_ROWS>, 0);
        const u64 sparse_descriptor = slab_descriptor(q_tile + 2 * TILE_BYTES<TILE_ROWS>, 0);
        wgmma_fence();
        depth_product<TILE_ROWS, TILE_KEYS, TILE_ROWS, false>(s[0], none, k_descriptor, slab_descriptor(q_tile, 0));
        depth_product<TILE_ROWS, TILE_KEYS, TILE_ROWS, false>(ds[0], none, v_descriptor, full_descriptor);
        if (any) depth_product<TILE_ROWS, TILE_KEYS, TILE_ROWS, false>(sparse_ds[0], none, v_descriptor, sparse_descriptor);
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_rows(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);
        pin(ds[0]);
        pin(sparse_ds[0]);

        const int row = rows_begin + index * TILE_ROWS;
        if (warp_first_key + 16 > row / GROUP + 1) {
#pragma unroll
            for (int n = 0; n < ROW_COLUMNS; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (warp_first_key + 8 * (i / 2) + lane / 4 > row / GROUP + n / 2) s[0][n][i] = -infinity();
        }
        // lse / ln 2 and delta of the two rows that are this lane's columns, of full and of sparse attention.
        const float4* full_rows =
            reinterpret_cast<const float4*>(shared + STATISTICS + index % STAGES * STAGE_STATISTICS) + lane % 4;
        const float4* sparse_rows = full_rows + TILE_ROWS / 2;
        if (any) {
            // Its operands are about to be replaced.
            wgmma_wait<0>();
            pin(dk_keys[0]);
            pin(dv_keys[0]);
#pragma unroll
            for (int n = 0; n < ROW_COLUMNS; n += 2) {
                const bool is_selected = own >> (n / 2) & 1;
                float p[1][2][4];
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const float4 pair = sparse_rows[4 * (n + i / 4)];
                    const float x = exp2_approx(s[0][n + i / 4][i % 4] * scale - (i % 2 ? pair.z : pair.x));
                    p[0][i / 4][i % 4] = is_selected ? x : 0.0f;
                    float& y = sparse_ds[0][n + i / 4][i % 4];
                    y = p[0][i / 4][i % 4] * (y - (i % 2 ? pair.w : pair.y));
                }
                to_a(reinterpret_cast<u32(&)[1][4]>(sparse_p_rows[n / 2]), p, 0);
            }
        }
#pragma unroll
        for (int n = 0; n < ROW_COLUMNS; ++n) {
            const float4 pair = full_rows[4 * n];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float &p = s[0][n][i], &x = ds[0][n][i];
                p = exp2_approx(p * scale - (i % 2 ? pair.z : pair.x));
                x = p * (x - (i % 2 ? pair.w : pair.y));
                if (any) x += sparse_ds[0][n][i];
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
        any_before = any;
    }
    if (row_tiles > 0) {
        wgmma_fence();
        add_tile(row_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(dk_keys[0]);
        pin(dv_keys[0]);
    }
    copy_async_wait<0>();
    write_keys<TILE_KEYS>(
        dk_keys, dv_keys, dk, add_dk, dv, add_dv, partial, piece.z, key_index, kv_head, kv_heads, first_key, warp_key, keys,
        softmax_scale, 0, lane);
}
#endif
