// The tile of packed rows that a block of the query-centric kernels owns, and the keys it sees.
#pragma once
#include "online_softmax.cuh"
#include "tile.cuh"

constexpr int WARP_ROWS = TILE_ROWS / WARPS;
// Row tiles of a warp.
constexpr int ROW_TILES = WARP_ROWS / 16;
static_assert(TILE_ROWS == WARPS * ROW_TILES * 16, "a warp owns whole row tiles");

// TILE_ROWS rows of one document and key/value head, WARP_ROWS for each warp. The warps walk the
// keys in tiles of TILE_KEYS. Grid: entries of `tiles` * kv_heads. An entry is: first token and
// number of tokens of the document, its first key, first row of the tile.
struct QueryTile {
    int document_start, kv_head, window_or_block;
    // Packed rows of the document, and the first of the tile.
    int rows, first_row;
    PackedRows row_index;
    KeyRows key_index;
    // The warp's first row, counted from that of the tile.
    int lane, warp_row;
    // Keys that some row of the tile sees.
    int keys_begin, keys_end, key_tiles;
    // Keys outside this range are masked for some row of the warp.
    int all_see_from, all_see_to;

    DEVICE_MEMBER QueryTile(const int4* tiles, int kv_heads, int window_or_block)
        : QueryTile(tiles[blockIdx.x / kv_heads], blockIdx.x % kv_heads, kv_heads,
                    window_or_block) {}

    DEVICE_MEMBER int warp_first_row() const { return first_row + warp_row; }
    // The row of the document that is row 16 m + 8 half + lane / 4 of the warp.
    DEVICE_MEMBER int row(int m, int half) const {
        return warp_first_row() + 16 * m + 8 * half + lane / 4;
    }

    // Loads lse / ln 2 and delta of the warp's rows from `[H, N, GROUP]`.
    DEVICE_MEMBER void load_statistics(float2 (&x)[ROW_TILES][2], const float2* statistics,
                                       int tokens) const {
        statistics += statistics_row(kv_head, tokens, document_start);
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                x[m][half] = statistics[min(row(m, half), rows - 1)];
    }

    // Masks the scores of the warp's rows for keys that they do not see. The columns of `s` are the
    // keys from `key` on.
    template <int N> DEVICE_MEMBER void mask(float (&s)[ROW_TILES][N][4], int key) const {
        if (key >= all_see_from && key + 8 * N <= all_see_to) return;
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int position = min(row(m, half), rows - 1) / GROUP;
                const int from = seen_from(position, window_or_block) - key;
                const int to = seen_to(position, window_or_block) - key;
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const int column = 8 * n + lane % 4 * 2 + i;
                        if (column < from || column >= to) s[m][n][2 * half + i] = -infinity();
                    }
            }
    }

    // Divides the outputs of the warp's rows by their sums (a row without keys has zeros) and
    // writes their lse.
    DEVICE_MEMBER void finish(const OnlineSoftmax<ROW_TILES, ExactMaximum>& softmax,
                              float (&o)[ROW_TILES][DEPTH_COLUMNS][4], float* lse) const {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float total = softmax.total(m, half);
                scale_row(o[m], half, softmax.normalizer(total));
                if (lane % 4 == 0 && row(m, half) < rows)
                    lse[row_index(row(m, half))] = softmax.lse(m, half, total);
            }
    }

    // Writes the rows of the warp to `[N, HQ, HEAD_DIM]` in whole chunks, through the warp's rows
    // of the tile at `shared`. `add` as for gradients.
    DEVICE_MEMBER void write(u8* shared, bf16* to, const float (&x)[ROW_TILES][DEPTH_COLUMNS][4],
                             float factor, int add) const {
        using WarpTile = Tile<WARP_ROWS>;
        u8* tile = shared + warp_row * ROW_BYTES;
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int n = 0; n < DEPTH_COLUMNS; ++n) {
                    u8* chunk = tile + WarpTile::offset(16 * m + 8 * half + lane / 4, n);
                    *reinterpret_cast<u32*>(chunk + lane % 4 * 4) =
                        pack_bf16(x[m][n][2 * half] * factor, x[m][n][2 * half + 1] * factor);
                }
        __syncwarp();
        for (int i = lane; i < WARP_ROWS * (HEAD_DIM / 8); i += WARP) {
            const int row = i / (HEAD_DIM / 8), chunk = i % (HEAD_DIM / 8);
            if (warp_first_row() + row >= rows) break;
            const u8* source = tile + WarpTile::offset(row, chunk);
            bf16* target = to + row_index(warp_first_row() + row) * HEAD_DIM + chunk * 8;
            if (add) {
                float sum[8];
                load8(sum, reinterpret_cast<const bf16*>(source));
                accumulate8(target, sum, 1);
            } else {
                *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(source);
            }
        }
        __syncwarp();
    }

private:
    DEVICE_MEMBER QueryTile(int4 entry, int kv_head, int kv_heads, int window_or_block)
        : document_start(entry.x), kv_head(kv_head), window_or_block(window_or_block),
          rows(entry.y * GROUP), first_row(entry.w), row_index(entry.x, kv_head, kv_heads),
          key_index(entry.z, kv_head, kv_heads), lane(threadIdx.x % WARP),
          warp_row(threadIdx.x / WARP * WARP_ROWS) {
        const int last_row = min(first_row + TILE_ROWS, rows) - 1;
        keys_end = seen_to(last_row / GROUP, window_or_block);
        const int first_seen = seen_from(first_row / GROUP, window_or_block);
        keys_begin = first_seen / TILE_KEYS * TILE_KEYS;
        key_tiles = (keys_end - keys_begin + TILE_KEYS - 1) / TILE_KEYS;
        const int warp_last_row = min(warp_first_row() + WARP_ROWS, rows) - 1;
        all_see_from = seen_from(warp_last_row / GROUP, window_or_block);
        all_see_to = seen_to(warp_first_row() / GROUP, window_or_block);
    }
};
