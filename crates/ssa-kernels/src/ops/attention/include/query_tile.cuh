// What a block of the query-centric kernels owns: a tile of packed rows, and the keys that they
// see.
#pragma once
#include "attention.cuh"

// TILE_ROWS rows of one document and key/value head, WARP_ROWS of them a warp's, which walk their
// keys in tiles of WALK_KEYS. Grid: entries of `tiles` * kv_heads. An entry is: first token and
// number of tokens of the document, its first key, first row of the tile.
template <int TILE_ROWS, int WARP_ROWS, int WALK_KEYS> struct QueryTile {
    int document_start, kv_head, reach;
    // Packed rows of the document, and the first of the tile.
    int rows, first_row;
    PackedRows row_index;
    KeyRows key_index;
    // The warp's first row, counted from that of the tile.
    int lane, warp_row;
    // Keys that some row of the tile sees.
    int keys_begin, keys_end, key_tiles;
    // Keys outside this range are behind a border for some row of the warp.
    int all_see_from, all_see_to;

    DEVICE_MEMBER QueryTile(const int4* tiles, int kv_heads, int reach)
        : QueryTile(tiles[blockIdx.x / kv_heads], blockIdx.x % kv_heads, kv_heads, reach) {}

    DEVICE_MEMBER int warp_first_row() const { return first_row + warp_row; }

    // Removes the scores that rows of the warp have with keys they do not see. The columns of `s`
    // are the keys from `key` on.
    template <int M, int N> DEVICE_MEMBER void mask(float (&s)[M][N][4], int key) const {
        if (key >= all_see_from && key + 8 * N <= all_see_to) return;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int position = min(warp_first_row() + 16 * m + 8 * half + lane / 4, rows - 1) / GROUP;
                const int from = seen_from(position, reach) - key, to = seen_to(position, reach) - key;
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const int column = 8 * n + lane % 4 * 2 + i;
                        if (column < from || column >= to) s[m][n][2 * half + i] = -infinity();
                    }
            }
    }

    // Writes the rows of the warp in whole chunks, by way of their place in the tile of q at
    // `shared`. `add` as of gradients.
    template <int M, int N>
    DEVICE_MEMBER void write(u8* shared, bf16* to, const float (&x)[M][N][4], float factor, int add) const {
        u8* tile = shared + warp_row * ROW_BYTES;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int n = 0; n < N; ++n)
                    *reinterpret_cast<u32*>(tile + swizzle<ROW_BYTES>(16 * m + 8 * half + lane / 4, n) + lane % 4 * 4) =
                        pack_bf16(x[m][n][2 * half] * factor, x[m][n][2 * half + 1] * factor);
        __syncwarp();
        for (int i = lane; i < WARP_ROWS * (HEAD_DIM / 8); i += WARP) {
            const int row = i / (HEAD_DIM / 8), chunk = i % (HEAD_DIM / 8);
            if (warp_first_row() + row >= rows) break;
            const u8* source = tile + swizzle<ROW_BYTES>(row, chunk);
            uint4* target = reinterpret_cast<uint4*>(to + row_index(warp_first_row() + row) * HEAD_DIM + chunk * 8);
            if (add) {
                float sum[8];
                load8(sum, reinterpret_cast<const bf16*>(source));
                accumulate8(reinterpret_cast<bf16*>(target), sum, 1);
            } else {
                *target = *reinterpret_cast<const uint4*>(source);
            }
        }
        __syncwarp();
    }

private:
    DEVICE_MEMBER QueryTile(int4 entry, int kv_head, int kv_heads, int reach)
        : document_start(entry.x), kv_head(kv_head), reach(reach), rows(entry.y * GROUP), first_row(entry.w),
          row_index(entry.x, kv_head, kv_heads), key_index(entry.z, kv_head, kv_heads), lane(threadIdx.x % WARP),
          warp_row(threadIdx.x / WARP * WARP_ROWS) {
        const int last_row = min(first_row + TILE_ROWS, rows) - 1;
        keys_end = seen_to(last_row / GROUP, reach);
        keys_begin = seen_from(first_row / GROUP, reach) / WALK_KEYS * WALK_KEYS;
        key_tiles = (keys_end - keys_begin + WALK_KEYS - 1) / WALK_KEYS;
        all_see_from = seen_from((min(warp_first_row() + WARP_ROWS, rows) - 1) / GROUP, reach);
        all_see_to = seen_to(warp_first_row() / GROUP, reach);
    }
};

// ---- Online softmax of the two rows that a lane holds of each row tile
// ---------------------------------------------------

// Scores are scaled by `scale` = softmax_scale / ln 2 on their way into 2^x, so that no product is
// spent on it.
template <int M> struct Softmax {
    float largest[M][2], sum[M][2];

    DEVICE_MEMBER Softmax() {
#pragma unroll
        for (int m = 0; m < M; ++m) largest[m][0] = largest[m][1] = -infinity(), sum[m][0] = sum[m][1] = 0.0f;
    }

    // What to subtract from scaled scores: finite also where a row has seen nothing.
    DEVICE_MEMBER float reference(int m, int half, float scale) const {
        return largest[m][half] == -infinity() ? 0.0f : largest[m][half] * scale;
    }

    // Takes in the largest scores that a lane found in a tile, and moves what was summed to the new
    // reference.
    template <int N>
    DEVICE_MEMBER void advance(float (&o)[M][N][4], const float (&found)[M][2], float scale) {
        float next[M][2];
        bool moved = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                next[m][half] = fmaxf(largest[m][half], quad_max(found[m][half]));
                moved |= next[m][half] > largest[m][half];
            }
        // After the first few tiles new largest scores are rare.
        if (!__any_sync(ALL_LANES, moved)) return;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float old = largest[m][half];
                largest[m][half] = next[m][half];
                const float factor = exp2_approx(old * scale - reference(m, half, scale));
                sum[m][half] *= factor;
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    o[m][n][2 * half] *= factor;
                    o[m][n][2 * half + 1] *= factor;
                }
            }
    }

    // Divides the outputs of a row by its sum (a row without keys has zeros) and writes its lse.
    template <int N, typename Tile>
    DEVICE_MEMBER void finish(float (&o)[M][N][4], float* lse, const Tile& own, float scale) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float total = quad_sum(sum[m][half]);
                const float factor = total > 0.0f ? 1.0f / total : 0.0f;
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    o[m][n][2 * half] *= factor;
                    o[m][n][2 * half + 1] *= factor;
                }
                const int row = own.warp_first_row() + 16 * m + 8 * half + own.lane / 4;
                if (own.lane % 4 == 0 && row < own.rows)
                    lse[own.row_index(row)] = total > 0.0f ? (largest[m][half] * scale + __log2f(total)) * LN_2 : -infinity();
            }
    }
};
