// tiled/forward.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: the same function, arguments and tiles list.
//
// A block is WARPGROUPS warpgroups of 64 packed rows. Q, K and V are read from shared memory by the tensor cores. The scores of
// a tile are computed while the probabilities of the tile before are multiplied with its values, and the exponentials of one
// warpgroup overlap with the products of the others.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int DEPTH_STEPS = HEAD_DIM / 16;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_fwd(
    const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int kv_heads, int reach, float softmax_scale
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

    const u32 q_tile = shared_address(shared), ring = q_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto copy_keys = [&](int index) {
        if (index < key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = keys_begin + (key_tiles - 1 - index) * KEYS;
            const u32 stage = ring + index % STAGES * STAGE_BYTES;
            copy_slabs<KEYS, THREADS>(stage, k, key_index, key, keys_end);
            copy_slabs<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, key, keys_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the rows of q have arrived too.
    copy_slabs<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_keys(i);

    const u64 q_descriptor = slab_descriptor(q_tile + threadIdx.x / 128 * (64 * 128), 0);
    float s[1][KEY_COLUMNS][4], o[1][DEPTH_COLUMNS][4];
    u32 p[KEY_COLUMNS / 2][4];
    set_zero(o);
    float largest[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};

    for (int index = 0; index < key_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u64 k_descriptor = slab_descriptor(k_tile, 0);
        wgmma_fence();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d)
            wgmma<KEYS>(s[0], depth_step<TILE_ROWS>(q_descriptor, d), depth_step<KEYS>(k_descriptor, d), d > 0);
        wgmma_commit();
        if (index > 0) {
            const u32 v_tile = ring + (index - 1) % STAGES * STAGE_BYTES + TILE_BYTES<KEYS>;
            const u64 v_descriptor = slab_descriptor(v_tile, KEYS * 128);
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS / 2; ++n) wgmma_rows_columns<HEAD_DIM>(o[0], p[n], row_step(v_descriptor, n));
        }
        wgmma_commit();
        copy_keys(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);

        const int key = keys_begin + (key_tiles - 1 - index) * KEYS;
        if (key < all_see_from || key + KEYS > all_see_to)
            mask_keys(s, first_row + warp_row, rows, key, reach, lane);
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Four partial maxima and sums: one chain of dependent operations would wait for itself.
            float x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = s[0][i / 2][2 * half + i % 2];
#pragma unroll
            for (int i = 4; i < 2 * KEY_COLUMNS; ++i) x[i % 4] = fmaxf(x[i % 4], s[0][i / 2][2 * half + i % 2]);
            const float next = fmaxf(largest[half], quad_max(fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]))));
            const float reference = next == -infinity() ? 0.0f : next * scale;
            factor[half] = exp2_approx(largest[half] * scale - reference);
            largest[half] = next;
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = 0.0f;
#pragma unroll
            for (int i = 0; i < 2 * KEY_COLUMNS; ++i) {
                float& score = s[0][i / 2][2 * half + i % 2];
                score = exp2_approx(score * scale - reference);
                x[i % 4] += score;
            }
            const float tile_sum = (x[0] + x[1]) + (x[2] + x[3]);
            sum[half] = sum[half] * factor[half] + tile_sum;
        }

        wgmma_wait<0>();
        pin(o[0]);
        if (index > 0) tiles_in_flight.release(index - 1);
        if (__any_sync(ALL_LANES, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
            for (int n = 0; n < DEPTH_COLUMNS; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) o[0][n][i] *= factor[i / 2];
        }
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n) to_a(reinterpret_cast<u32(&)[1][4]>(p[n]), s, 2 * n);
    }
    if (key_tiles > 0) {
        const u32 v_tile = ring + (key_tiles - 1) % STAGES * STAGE_BYTES + TILE_BYTES<KEYS>;
        const u64 v_descriptor = slab_descriptor(v_tile, KEYS * 128);
        wgmma_fence();
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n) wgmma_rows_columns<HEAD_DIM>(o[0], p[n], row_step(v_descriptor, n));
        wgmma_commit();
        wgmma_wait<0>();
        pin(o[0]);
    }

    copy_async_wait_all();
    __syncthreads();
    Softmax<1> softmax;
    softmax.largest[0][0] = largest[0], softmax.largest[0][1] = largest[1];
    softmax.sum[0][0] = sum[0], softmax.sum[0][1] = sum[1];
    softmax.finish(o, lse, row_index, first_row + warp_row, rows, scale, lane);
    write_rows(shared + warp_row * ROW_BYTES, out, o, row_index, first_row + warp_row, rows, 1.0f, 0, lane);
}
#endif
