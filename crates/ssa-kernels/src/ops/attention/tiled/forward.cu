// Attention over a range of keys per query, forward: online softmax over key tiles (README.md of
// this folder).
//
//   out[r] = sum_j e^(s_rj - lse_r) v_j, lse_r = ln sum_j e^(s_rj), s_rj = softmax_scale q_r . k_j
//
// A block takes TILE_ROWS packed rows (attention.cuh) of one document and key/value head, a warp 16
// * ROW_TILES of them, and walks the keys from the last to the first, so that the tiles which need
// a mask come first. Keys and values arrive in a ring of STAGES tiles by cp.async. Scores,
// probabilities and outputs never leave the registers: the accumulator of S = Q K^T is, rounded,
// the first operand of O += P V.
//
// 32 rows a warp instead of 16 halve what the products read from shared memory, which would bound
// the kernel otherwise.
#include "query_tile.cuh"

// Given as macros: ROW_TILES, WARPS, KEYS of a tile, STAGES of the ring, MIN_BLOCKS of a
// multiprocessor.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int TILE_ROWS = WARPS * WARP_ROWS;
constexpr int KEY_COLUMNS = KEYS / 8;
constexpr bool Q_IN_REGISTERS = ROW_TILES * DEPTH_STEPS <= 8;
// Shared memory: the rows of q (and at the end of out), then the ring of key and value tiles.
constexpr int STAGE_BYTES = 2 * TILE_BYTES<KEYS>;

extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) tiled_attention_fwd(
    const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
    const int4* tiles, // query_tile.cuh
    int kv_heads, int reach, float softmax_scale
) {
    const QueryTile<TILE_ROWS, WARP_ROWS, KEYS> own(tiles, kv_heads, reach);
    const float scale = softmax_scale * LOG2_E;

    const u32 q_tile = shared_address(shared), ring = q_tile + TILE_BYTES<TILE_ROWS>;
    const auto first_key = [&](int index) { return own.keys_begin + (own.key_tiles - 1 - index) * KEYS; };
    const auto copy_keys = [&](int index) {
        const int key = first_key(index);
        const u32 stage = ring + index % STAGES * STAGE_BYTES;
        copy_tile<KEYS, THREADS>(stage, k, own.key_index, key, own.keys_end);
        copy_tile<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, own.key_index, key, own.keys_end);
    };
    copy_tile<TILE_ROWS, THREADS>(q_tile, q, own.row_index, own.first_row, own.rows);
    fill_ring<STAGES>(own.key_tiles, copy_keys);

    const u32 q_lane = fragment_a(q_tile + own.warp_row * ROW_BYTES, own.lane);
    u32 q_fragments[Q_IN_REGISTERS ? DEPTH_STEPS : 1][ROW_TILES][4];
    if constexpr (Q_IN_REGISTERS) {
        wait_for_tile<STAGES>();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d)
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m) load_a(q_fragments[d][m], fragment_at(q_lane, 16 * m, d));
    }

    float o[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(o);
    Softmax<ROW_TILES> softmax;
    for (int index = 0; index < own.key_tiles; ++index) {
        advance_ring<STAGES>(index, own.key_tiles, copy_keys);

        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 k_lane = fragment_b(k_tile, own.lane), v_lane = fragment_b_trans(k_tile + TILE_BYTES<KEYS>, own.lane);
        float s[ROW_TILES][KEY_COLUMNS][4];
        set_zero(s);
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            u32 a[ROW_TILES][4];
            if constexpr (!Q_IN_REGISTERS) {
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m) load_a(a[m], fragment_at(q_lane, 16 * m, d));
            }
#pragma unroll
            for (int n = 0; n < KEY_COLUMNS; n += 2) {
                u32 b[2][2];
                load_b(b, fragment_at(k_lane, 8 * n, d));
                if constexpr (Q_IN_REGISTERS) {
                    mma_pair(s, n, q_fragments[d], b);
                } else {
                    mma_pair(s, n, a, b);
                }
            }
        }

        own.mask(s, first_key(index));
        float found[ROW_TILES][2], reference[ROW_TILES][2];
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float x = s[m][0][2 * half];
#pragma unroll
                for (int i = 1; i < 2 * KEY_COLUMNS; ++i) x = fmaxf(x, s[m][i / 2][2 * half + i % 2]);
                found[m][half] = x;
            }
        softmax.advance(o, found, scale);
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) reference[m][half] = softmax.reference(m, half, scale);

        // Exponentials are taken right before the product that uses them: they overlap with the one
        // before.
#pragma unroll
        for (int n = 0; n < KEY_COLUMNS; n += 2) {
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    float& x = s[m][n + i / 4][i % 4];
                    x = exp2_approx(x * scale - reference[m][i % 4 / 2]);
                    softmax.sum[m][i % 4 / 2] += x;
                }
            u32 p[ROW_TILES][4];
            to_a(p, s, n);
#pragma unroll
            for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                u32 b[2][2];
                load_b_trans(b, fragment_at(v_lane, 8 * n, d / 2));
                mma_pair(o, d, p, b);
            }
        }
    }

    // The rows of a warp in the tile of q are its own, so they can take the output. (A block
    // without keys has yet to see its q arrive.)
    copy_async_wait<0>();
    __syncthreads();
    softmax.finish(o, lse, own, scale);
    own.write(shared, out, o, 1.0f, 0);
}
