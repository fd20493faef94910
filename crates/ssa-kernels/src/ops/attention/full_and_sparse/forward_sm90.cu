// Full and sparse attention at once, forward, for warpgroup products (sm_90a), HEAD_DIM 64: the function and the arguments of
// forward.cu, the pipeline of tiled/forward_sm90.cu.
//
// A warp is one token, a warpgroup four: only tiles in which any of the four selected a block do the second softmax and the
// second product with V; the probabilities of a token that did not are zero there.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "attention_sm90.cuh"
#include "selection.cuh"

// Given as macros: WARPGROUPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a multiprocessor.

constexpr int THREADS = WARPGROUPS * 128;
constexpr int TILE_ROWS = WARPGROUPS * 64;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr int DEPTH_COLUMNS = HEAD_DIM / 8;
constexpr int DEPTH_STEPS = HEAD_DIM / 16;
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) full_and_sparse_attention_fwd(
    const bf16* q, const bf16* k, const bf16* v, const u32* selection,
    bf16* full_out, float* full_lse, bf16* sparse_out, float* sparse_lse,
    const int4* tiles, // first token and number of tokens of the document, its first key, first row of the tile
    int kv_heads, int selection_words, float softmax_scale
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

    const u32 q_tile = shared_address(shared), ring = q_tile + TILE_BYTES<TILE_ROWS>;
    const Ring<STAGES, THREADS> tiles_in_flight{ring + STAGES * STAGE_BYTES};
    const auto copy_keys = [&](int index) {
        if (index < key_tiles) {
            tiles_in_flight.wait_empty(index);
            const int key = (key_tiles - 1 - index) * KEYS;
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
    float s[1][KEY_COLUMNS][4], full[1][DEPTH_COLUMNS][4], sparse[1][DEPTH_COLUMNS][4];
    u32 full_p[KEY_COLUMNS / 2][4], sparse_p[KEY_COLUMNS / 2][4];
    set_zero(full);
    set_zero(sparse);
    Softmax<1> full_softmax, sparse_softmax;
    // Whether any token of the warpgroup selected a block of the tile before.
    u32 any_before = 0, bits = selected.load((key_tiles - 1) * KEYS, KEYS);
    const auto add_tile = [&](int index) {
        const u64 v_descriptor =
            slab_descriptor(ring + index % STAGES * STAGE_BYTES + TILE_BYTES<KEYS>, KEYS * 128);
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n)
            wgmma_rows_columns<HEAD_DIM>(full[0], full_p[n], row_step(v_descriptor, n));
        if (any_before) {
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS / 2; ++n)
                wgmma_rows_columns<HEAD_DIM>(sparse[0], sparse_p[n], row_step(v_descriptor, n));
        }
    };
    for (int index = 0; index < key_tiles; ++index) {
        tiles_in_flight.wait_full(index);
        const u64 k_descriptor = slab_descriptor(ring + index % STAGES * STAGE_BYTES, 0);
        wgmma_fence();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d)
            wgmma<KEYS>(s[0], depth_step<TILE_ROWS>(q_descriptor, d), depth_step<KEYS>(k_descriptor, d), d > 0);
        wgmma_commit();
        if (index > 0) add_tile(index - 1);
        wgmma_commit();
        copy_keys(index + STAGES - 2);

        const int key = (key_tiles - 1 - index) * KEYS;
        const u32 any = __reduce_or_sync(ALL_LANES, bits), own = __shfl_sync(ALL_LANES, bits, threadIdx.x / WARP % 4);
        bits = selected.load(max(key - KEYS, 0), KEYS);
        wgmma_wait<1>();
        pin(s[0]);
        if (key + KEYS > token + 1) mask_keys(s, first_row + warp_row, rows, key, 0x7fffffff, lane);

        const auto is_selected = [&](int n) { return own >> (8 * n / BLOCK_SIZE) & 1; };
        float found[1][2];
        if (any) {
            // Its operands are about to be replaced.
            wgmma_wait<0>();
            pin(full[0]);
            pin(sparse[0]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                found[0][half] = -infinity();
#pragma unroll
                for (int n = 0; n < KEY_COLUMNS; ++n)
                    if (is_selected(n))
                        found[0][half] = fmaxf(found[0][half], fmaxf(s[0][n][2 * half], s[0][n][2 * half + 1]));
            }
            sparse_softmax.advance(sparse, found, scale);
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS; n += 2) {
                float p[1][2][4];
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const int half = i % 4 / 2;
                    const float x =
                        exp2_approx(s[0][n + i / 4][i % 4] * scale - sparse_softmax.reference(0, half, scale));
                    p[0][i / 4][i % 4] = is_selected(n) ? x : 0.0f;
                    sparse_softmax.sum[0][half] += p[0][i / 4][i % 4];
                }
                to_a(reinterpret_cast<u32(&)[1][4]>(sparse_p[n / 2]), p, 0);
            }
        }

        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Four partial maxima and sums: one chain of dependent operations would wait for itself.
            float x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = s[0][i / 2][2 * half + i % 2];
#pragma unroll
            for (int i = 4; i < 2 * KEY_COLUMNS; ++i) x[i % 4] = fmaxf(x[i % 4], s[0][i / 2][2 * half + i % 2]);
            const float old = full_softmax.largest[0][half];
            full_softmax.largest[0][half] = fmaxf(old, quad_max(fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]))));
            const float reference = full_softmax.reference(0, half, scale);
            factor[half] = exp2_approx(old * scale - reference);
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = 0.0f;
#pragma unroll
            for (int i = 0; i < 2 * KEY_COLUMNS; ++i) {
                float& score = s[0][i / 2][2 * half + i % 2];
                score = exp2_approx(score * scale - reference);
                x[i % 4] += score;
            }
            full_softmax.sum[0][half] = full_softmax.sum[0][half] * factor[half] + ((x[0] + x[1]) + (x[2] + x[3]));
        }

        wgmma_wait<0>();
        pin(full[0]);
        pin(sparse[0]);
        if (index > 0) tiles_in_flight.release(index - 1);
        if (__any_sync(ALL_LANES, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
            for (int n = 0; n < DEPTH_COLUMNS; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) full[0][n][i] *= factor[i / 2];
        }
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS / 2; ++n) to_a(reinterpret_cast<u32(&)[1][4]>(full_p[n]), s, 2 * n);
        any_before = any;
    }
    wgmma_fence();
    add_tile(key_tiles - 1);
    wgmma_commit();
    wgmma_wait<0>();
    pin(full[0]);
    pin(sparse[0]);

    // The rows of a warp in the tile of q are its own, so they can take the outputs.
    copy_async_wait<0>();
    __syncthreads();
    const int row = first_row + warp_row;
    u8* const warp_tile = shared + warp_row * ROW_BYTES;
    full_softmax.finish(full, full_lse, row_index, row, rows, scale, lane);
    write_rows(warp_tile, full_out, full, row_index, row, rows, 1.0f, 0, lane);
    sparse_softmax.finish(sparse, sparse_lse, row_index, row, rows, scale, lane);
    write_rows(warp_tile, sparse_out, sparse, row_index, row, rows, 1.0f, 0, lane);
}
#endif
