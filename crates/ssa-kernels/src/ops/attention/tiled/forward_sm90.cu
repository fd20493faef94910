// tiled/forward.cu for warpgroup products (sm_90a), HEAD_DIM 64 or 128: the same function,
// arguments and tiles list.
//
// A block is WARPGROUPS warpgroups of 64 packed rows. Q, K and V are read from shared memory by the
// tensor cores. The scores of a tile are computed while the probabilities of the tile before are
// multiplied with its values, and the exponentials of one warpgroup overlap with the products of
// the others.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "query_tile.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_fwd(
    const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
    const int4* tiles, // query_tile.cuh
    int kv_heads, int reach, float softmax_scale
) {
    const QueryTile<TILE_ROWS, 16, KEYS> own(tiles, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;

    const u32 q_tile = shared_address(shared), ring = q_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto first_key = [&](int index) { return own.keys_begin + (own.key_tiles - 1 - index) * KEYS; };
    const auto copy_keys = [&](int index) {
        if (index < own.key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = first_key(index);
            const u32 stage = ring + index % STAGES * STAGE_BYTES;
            copy_slabs<KEYS, THREADS>(stage, k, own.key_index, key, own.keys_end);
            copy_slabs<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, own.key_index, key, own.keys_end);
            tiles_in_flight.started(index);
        }
    };
    tiles_in_flight.init();
    // The first tile is full when the rows of q have arrived too.
    copy_slabs<TILE_ROWS, THREADS>(q_tile, q, own.row_index, own.first_row, own.rows);
#pragma unroll
    for (int i = 0; i < STAGES - 2; ++i) copy_keys(i);

    const u64 q_descriptor = warpgroup_rows(q_tile);
    float s[1][KEY_COLUMNS][4], o[1][DEPTH_COLUMNS][4];
    u32 p[KEY_COLUMNS / 2][4];
    set_zero(o);
    float largest[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};
    // o += P V for the tile whose probabilities are in `p`.
    const auto add_tile = [&](int index) {
        const u32 v_tile = ring + index % STAGES * STAGE_BYTES + TILE_BYTES<KEYS>;
        row_product(o[0], p, slab_descriptor(v_tile, KEYS * 128));
    };
    for (int index = 0; index < own.key_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        wgmma_fence();
        depth_product<TILE_ROWS, KEYS>(s[0], q_descriptor, slab_descriptor(k_tile, 0));
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_keys(index + STAGES - 2);
        wgmma_wait<1>();
        pin(s[0]);

        own.mask(s, first_key(index));
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Four partial maxima and sums: one chain of dependent operations would wait for
            // itself.
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
        pack_operands(p, s[0]);
    }
    if (own.key_tiles > 0) {
        wgmma_fence();
        add_tile(own.key_tiles - 1);
        wgmma_commit();
        wgmma_wait<0>();
        pin(o[0]);
    }

    copy_async_wait_all();
    __syncthreads();
    Softmax<1> softmax;
    softmax.largest[0][0] = largest[0], softmax.largest[0][1] = largest[1];
    softmax.sum[0][0] = sum[0], softmax.sum[0][1] = sum[1];
    softmax.finish(o, lse, own, scale);
    own.write(shared, out, o, 1.0f, 0);
}
#endif
