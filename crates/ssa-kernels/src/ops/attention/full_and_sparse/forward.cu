// Full and sparse attention at once, forward: both are softmax averages of the same scores, so one pass over the keys computes
// S = Q K^T for both. Full attention is that of tiled/forward.cu; sparse attention is a second online softmax with its own
// largest score (one that shared the full one would vanish where selected scores are far below it), whose work is done
// only where a tile holds a selected block:
//
//   sparse_out[r] = sum_j e^(s_rj - sparse_lse_r) v_j  over the keys j of the blocks that r's token selected.
//
// GROUP = 16: a row tile of the tensor cores is one token, so that "selected" holds for a whole tile or not at all, and no
// element is masked for it. Neighbouring tokens select nearly the same blocks, so the row tiles of a warp share the
// fragments of V as well.
//
// With a third of the tiles selected the second stream costs a sixth of the products of a second kernel.
#include "attention.cuh"
#include "selection.cuh"

// Given as macros: ROW_TILES, WARPS, KEYS of a tile in shared memory and STEP_KEYS whose scores are in registers, STAGES of
// the ring, MIN_BLOCKS of a multiprocessor, BLOCK_SIZE.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int TILE_ROWS = WARPS * WARP_ROWS;
constexpr int STEP_COLUMNS = STEP_KEYS / 8;
constexpr int DEPTH_COLUMNS = DEPTH / 8;
constexpr int DEPTH_STEPS = DEPTH / 16;
constexpr bool Q_IN_REGISTERS = ROW_TILES * DEPTH_STEPS <= 8;
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
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * WARP_ROWS;
    const int first_token = (first_row + warp_row) / GROUP;
    const SelectedTokens<ROW_TILES> selected(
        selection, selection_words, tile.x + first_token, tile.y - first_token, kv_head, kv_heads);

    const int keys_end = (min(first_row + TILE_ROWS, rows) - 1) / GROUP + 1;
    const int key_tiles = (keys_end + KEYS - 1) / KEYS;

    const u32 q_tile = shared_address(shared), ring = q_tile + TILE_BYTES<TILE_ROWS>;
    const auto copy_keys = [&](int index) {
        const int key = (key_tiles - 1 - index) * KEYS;
        const u32 stage = ring + index % STAGES * STAGE_BYTES;
        copy_tile<KEYS, THREADS>(stage, k, key_index, key, keys_end);
        copy_tile<KEYS, THREADS>(stage + TILE_BYTES<KEYS>, v, key_index, key, keys_end);
    };
    copy_tile<TILE_ROWS, THREADS>(q_tile, q, row_index, first_row, rows);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (i < key_tiles) copy_keys(i);
        copy_async_commit();
    }

    const u32 q_lane = fragment_a(q_tile + warp_row * ROW_BYTES, lane);
    u32 q_fragments[DEPTH_STEPS][ROW_TILES][4];
    const auto load_rows = [&](int d) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) load_a(q_fragments[d][m], fragment_at(q_lane, 16 * m, d));
    };
    if constexpr (Q_IN_REGISTERS) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) load_rows(d);
    }

    float full[ROW_TILES][DEPTH_COLUMNS][4], sparse[ROW_TILES][DEPTH_COLUMNS][4];
    set_zero(full);
    set_zero(sparse);
    Softmax<ROW_TILES> full_softmax, sparse_softmax;
    u32 next_words[ROW_TILES];
    selected.load(next_words, (key_tiles - 1) * KEYS);
    for (int index = 0; index < key_tiles; ++index) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (index + STAGES - 1 < key_tiles) copy_keys(index + STAGES - 1);
        copy_async_commit();

        const int tile_key = (key_tiles - 1 - index) * KEYS;
        u32 words[ROW_TILES];
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) words[m] = next_words[m];
        selected.load(next_words, max(tile_key - KEYS, 0));

        const u32 k_tile = ring + index % STAGES * STAGE_BYTES;
        const u32 k_lane = fragment_b(k_tile, lane), v_lane = fragment_b_trans(k_tile + TILE_BYTES<KEYS>, lane);
#pragma unroll
        for (int step = KEYS - STEP_KEYS; step >= 0; step -= STEP_KEYS) {
            float s[ROW_TILES][STEP_COLUMNS][4];
            set_zero(s);
#pragma unroll
            for (int d = 0; d < DEPTH_STEPS; ++d) {
                if constexpr (!Q_IN_REGISTERS) load_rows(d);
#pragma unroll
                for (int n = 0; n < STEP_COLUMNS; n += 2) {
                    u32 b[2][2];
                    load_b(b, fragment_at(k_lane, step + 8 * n, d));
                    mma_pair(s, n, q_fragments[d], b);
                }
            }
            const int key = tile_key + step;
            if (key + STEP_KEYS > first_token + 1)
                mask_keys(s, first_row + warp_row, rows, key, 0x7fffffff, lane);

            // Selected, of the keys in columns 8 * n .. 8 * n + 16.
            const auto is_selected = [&](int m, int n) { return block_is_selected(words[m], key + 8 * n); };
            float found[ROW_TILES][2];
            u32 any[STEP_COLUMNS / 2], any_at_all = 0;
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
                any[n / 2] = 0;
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m) any[n / 2] |= is_selected(m, n);
                any_at_all |= any[n / 2];
            }
            if (any_at_all) {
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        found[m][half] = -infinity();
#pragma unroll
                        for (int n = 0; n < STEP_COLUMNS; n += 2) {
                            float x = fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]);
                            x = fmaxf(x, fmaxf(s[m][n + 1][2 * half], s[m][n + 1][2 * half + 1]));
                            if (is_selected(m, n)) found[m][half] = fmaxf(found[m][half], x);
                        }
                    }
                sparse_softmax.advance(sparse, found, scale);
            }
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    found[m][half] = s[m][0][2 * half];
#pragma unroll
                    for (int i = 1; i < 2 * STEP_COLUMNS; ++i)
                        found[m][half] = fmaxf(found[m][half], s[m][i / 2][2 * half + i % 2]);
                }
            full_softmax.advance(full, found, scale);

            // The probabilities of 16 keys relative to the softmax's reference, as the operand of the next product.
            const auto probabilities = [&](u32 (&p)[ROW_TILES][4], Softmax<ROW_TILES>& softmax, int n, bool sparse_only) {
                float x[ROW_TILES][2][4];
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m) {
                    const bool skip = sparse_only && !is_selected(m, n);
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const int half = i % 4 / 2;
                        const float y = exp2_approx(s[m][n + i / 4][i % 4] * scale - softmax.reference(m, half, scale));
                        x[m][i / 4][i % 4] = skip ? 0.0f : y;
                        softmax.sum[m][half] += x[m][i / 4][i % 4];
                    }
                }
                to_a(p, x, 0);
            };
#pragma unroll
            for (int n = 0; n < STEP_COLUMNS; n += 2) {
                u32 p[ROW_TILES][4];
                probabilities(p, full_softmax, n, false);
                if (any[n / 2]) {
                    u32 sparse_p[ROW_TILES][4];
                    probabilities(sparse_p, sparse_softmax, n, true);
#pragma unroll
                    for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                        u32 b[2][2];
                        load_b_trans(b, fragment_at(v_lane, step + 8 * n, d / 2));
                        mma_pair(full, d, p, b);
                        mma_pair(sparse, d, sparse_p, b);
                    }
                } else {
#pragma unroll
                    for (int d = 0; d < DEPTH_COLUMNS; d += 2) {
                        u32 b[2][2];
                        load_b_trans(b, fragment_at(v_lane, step + 8 * n, d / 2));
                        mma_pair(full, d, p, b);
                    }
                }
            }
        }
    }

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
