// What a block of the key-centric kernels owns: a tile of keys, and a piece of the list of packed
// rows that see them.
#pragma once
#include "attention.cuh"

// Where the gradients of a tile of keys go: to their tensor, or, where `partial` is not null, as a
// partial sum to `[keys of the tile, HEAD_DIM]` of f32.
struct KeyGradient {
    bf16* tensor;
    int add;
    float* partial;

    DEVICE_MEMBER void write(i64 row, int tile_row, int column, float x, float y) const {
        if (partial) {
            *reinterpret_cast<float2*>(partial + tile_row * HEAD_DIM + column) = make_float2(x, y);
            return;
        }
        u32* pair = reinterpret_cast<u32*>(tensor + row * HEAD_DIM + column);
        *pair = accumulate_bf16(pair, x, y, add);
    }
};

// The gradients of keys and values, and [slots, H, 2, keys of a tile, HEAD_DIM] of f32 for tiles
// whose rows are cut into pieces.
struct KeyGradients {
    bf16* dk;
    int add_dk;
    bf16* dv;
    int add_dv;
    float* partial;
};

// TILE_KEYS keys of one document and key/value head, WARP_KEYS of them a warp's, which walk their
// rows in tiles of WALK_ROWS. Grid: (pieces * kv_heads, ..). A piece is two entries of `pieces`:
// first token and number of tokens of the document, its first key, first key of the tile; first row
// and end of the rows, slot of the partial sum or -1, keys of the document.
template <int TILE_KEYS, int WARP_KEYS, int WALK_ROWS> struct KeyTile {
    int document_start, kv_head, kv_heads, reach;
    int first_key, keys, rows_begin, rows_end, slot;
    PackedRows row_index;
    KeyRows key_index;
    // The warp's first key, counted from that of the tile.
    int lane, warp_key;
    int row_tiles;

    DEVICE_MEMBER KeyTile(const int4* pieces, int kv_heads, int reach)
        : KeyTile(pieces[blockIdx.x / kv_heads * 2], pieces[blockIdx.x / kv_heads * 2 + 1], blockIdx.x % kv_heads, kv_heads,
                  reach) {}

    DEVICE_MEMBER int warp_first_key() const { return first_key + warp_key; }

    // Whether none of `count` rows from `row` on sees a key of the warp.
    DEVICE_MEMBER bool is_unseen(int row, int count) const {
        const bool is_later = warp_first_key() >= seen_to((row + count - 1) / GROUP, reach);
        const bool is_earlier = warp_first_key() + WARP_KEYS <= seen_from(row / GROUP, reach);
        // Without a branch between the two, which the compiler would keep.
        return is_later | is_earlier;
    }

    // Removes the scores that keys of the warp have with rows that do not see them. The columns of
    // `s` are rows from `row` on.
    template <int M, int N> DEVICE_MEMBER void mask(float (&s)[M][N][4], int row) const {
        if (warp_first_key() + WARP_KEYS <= seen_to(row / GROUP, reach) &&
            warp_first_key() >= seen_from((row + 8 * N - 1) / GROUP, reach))
            return;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int position = (row + 8 * n + lane % 4 * 2 + i) / GROUP;
                const int from = seen_from(position, reach), to = seen_to(position, reach);
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int key = warp_first_key() + 16 * m + 8 * half + lane / 4;
                        if (key < from || key >= to) s[m][n][2 * half + i] = -infinity();
                    }
            }
    }

    // Writes the gradients of the warp's keys, columns from `first_column` on.
    template <int M, int N>
    DEVICE_MEMBER void write(const KeyGradients& to, const float (&dk)[M][N][4], const float (&dv)[M][N][4],
                             float softmax_scale, int first_column) const {
        constexpr i64 PARTIAL = TILE_KEYS * HEAD_DIM;
        float* partial_dk = slot < 0 ? nullptr : to.partial + (i64(slot) * kv_heads + kv_head) * 2 * PARTIAL;
        const KeyGradient to_dk{to.dk, to.add_dk, partial_dk};
        const KeyGradient to_dv{to.dv, to.add_dv, partial_dk ? partial_dk + PARTIAL : nullptr};
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = warp_key + 16 * m + 8 * half + lane / 4;
                if (first_key + row >= keys) continue;
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    const int column = first_column + 8 * n + lane % 4 * 2;
                    if (column >= HEAD_DIM) continue;
                    const float *a = &dk[m][n][2 * half], *b = &dv[m][n][2 * half];
                    to_dk.write(key_index(first_key + row), row, column, a[0] * softmax_scale, a[1] * softmax_scale);
                    to_dv.write(key_index(first_key + row), row, column, b[0], b[1]);
                }
            }
    }

private:
    DEVICE_MEMBER KeyTile(int4 tile, int4 piece, int kv_head, int kv_heads, int reach)
        : document_start(tile.x), kv_head(kv_head), kv_heads(kv_heads), reach(reach), first_key(tile.w), keys(piece.w),
          rows_begin(piece.x), rows_end(piece.y), slot(piece.z), row_index(tile.x, kv_head, kv_heads),
          key_index(tile.z, kv_head, kv_heads), lane(threadIdx.x % WARP), warp_key(threadIdx.x / WARP * WARP_KEYS),
          row_tiles((rows_end - rows_begin + WALK_ROWS - 1) / WALK_ROWS) {}
};

// Turns the scores and dout . v of keys (rows) and query rows (columns) into p and ds.
// `statistics`: lse / ln 2 and delta of the query rows in shared memory, from the first column of
// this lane on.
template <int M, int N>
DEVICE void to_gradients(float (&s)[M][N][4], float (&ds)[M][N][4], const float4* statistics, float scale) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        // Of the two rows that are this lane's columns.
        const float4 pair = statistics[4 * n];
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float &p = s[m][n][i], &x = ds[m][n][i];
                p = exp2_approx(p * scale - (i % 2 ? pair.z : pair.x));
                x = p * (x - (i % 2 ? pair.w : pair.y));
            }
    }
}
