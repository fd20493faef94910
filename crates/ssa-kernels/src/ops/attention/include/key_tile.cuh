// The tile of keys that a block of the key-centric kernels owns, and its piece of the list of
// packed rows that see them.
#pragma once
#include "tile.cuh"

constexpr int WARP_KEYS = TILE_KEYS / WARPS;
// Tiles of 16 keys of a warp.
constexpr int KEY_TILES = WARP_KEYS / 16;
static_assert(TILE_KEYS == WARPS * KEY_TILES * 16, "a warp owns whole tiles of 16 keys");

// Row statistics of a tile of rows, a float2 each.
constexpr int STATISTICS_BYTES = TILE_ROWS * 8;
static_assert(TILE_ROWS <= THREADS, "a thread copies the statistics of at most one row");

// TILE_KEYS keys of one document and key/value head, WARP_KEYS for each warp. The warps walk the
// rows in tiles of TILE_ROWS. Grid: (pieces * kv_heads, ..). A piece is two entries of `pieces`:
// first token and number of tokens of the document, its first key, first key of the tile; first row
// and end of the rows, slot of the partial sum or -1, keys of the document.
struct KeyTile {
    int document_start, kv_head, kv_heads, window_or_block;
    int first_key, keys, rows_begin, rows_end, slot;
    PackedRows row_index;
    KeyRows key_index;
    // The warp's first key, counted from that of the tile.
    int lane, warp_key;
    int row_tiles;

    DEVICE_MEMBER KeyTile(const int4* pieces, int kv_heads, int window_or_block)
        : KeyTile(pieces[blockIdx.x / kv_heads * 2], pieces[blockIdx.x / kv_heads * 2 + 1],
                  blockIdx.x % kv_heads, kv_heads, window_or_block) {}

    DEVICE_MEMBER int warp_first_key() const { return first_key + warp_key; }
    // First row of tile `index` of the walk.
    DEVICE_MEMBER int row(int index) const { return rows_begin + index * TILE_ROWS; }

    // Starts the copies of the row statistics of tile `index` to their stage of the ring at `ring`.
    // `all` begins with the first row of the document.
    DEVICE_MEMBER void copy_statistics(u32 ring, const float2* all, int index) const {
        const u32 stage = ring + index % STAGES * STATISTICS_BYTES;
        const int i = threadIdx.x;
        if (i < TILE_ROWS)
            copy_async8(stage + i * 8, all + row(index) + i, row(index) + i < rows_end);
    }
    // The same stage, beginning with the first row of tile `index` that is a column of this lane.
    DEVICE_MEMBER const float4* statistics(const u8* ring, int index) const {
        const u8* stage = ring + index % STAGES * STATISTICS_BYTES;
        return reinterpret_cast<const float4*>(stage) + lane % 4;
    }

    // Whether none of the `count` rows that begin with `row` sees a key of the warp.
    DEVICE_MEMBER bool is_unseen(int row, int count) const {
        const int last = (row + count - 1) / GROUP;
        const bool is_later = warp_first_key() >= seen_to(last, window_or_block);
        const int from = seen_from(row / GROUP, window_or_block);
        const bool is_earlier = warp_first_key() + WARP_KEYS <= from;
        // Not as a branch between the two cases, which the compiler would keep.
        return is_later | is_earlier;
    }

    // Masks the scores of keys of the warp with rows that do not see them. The columns of `s` are
    // rows from `row` on.
    template <int N> DEVICE_MEMBER void mask(float (&s)[KEY_TILES][N][4], int row) const {
        if (warp_first_key() + WARP_KEYS <= seen_to(row / GROUP, window_or_block) &&
            warp_first_key() >= seen_from((row + 8 * N - 1) / GROUP, window_or_block))
            return;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int position = (row + 8 * n + lane % 4 * 2 + i) / GROUP;
                const int from = seen_from(position, window_or_block);
                const int to = seen_to(position, window_or_block);
#pragma unroll
                for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int key = warp_first_key() + 16 * m + 8 * half + lane / 4;
                        if (key < from || key >= to) s[m][n][2 * half + i] = -infinity();
                    }
            }
    }

    // Writes the gradients of the warp's keys, columns from `first_column` on: to their tensors or,
    // for a tile whose rows are cut into pieces, to its slot of `partial`, [slots, H, 2, keys of a
    // tile, HEAD_DIM].
    template <int N>
    DEVICE_MEMBER void write(Gradient<bf16> dk, Gradient<bf16> dv, float* partial,
                             const float (&dk_keys)[KEY_TILES][N][4],
                             const float (&dv_keys)[KEY_TILES][N][4], float softmax_scale,
                             int first_column) const {
        constexpr i64 PARTIAL = TILE_KEYS * HEAD_DIM;
        float* partial_dk =
            slot < 0 ? nullptr : partial + (i64(slot) * kv_heads + kv_head) * 2 * PARTIAL;
        float* partial_dv = slot < 0 ? nullptr : partial_dk + PARTIAL;
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int key = warp_key + 16 * m + 8 * half + lane / 4;
                if (first_key + key >= keys) continue;
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    const int column = first_column + 8 * n + lane % 4 * 2;
                    if (column >= HEAD_DIM) continue;
                    const float *a = &dk_keys[m][n][2 * half], *b = &dv_keys[m][n][2 * half];
                    write_pair(dk, partial_dk, key, column, a[0] * softmax_scale,
                               a[1] * softmax_scale);
                    write_pair(dv, partial_dv, key, column, b[0], b[1]);
                }
            }
    }

private:
    DEVICE_MEMBER void write_pair(Gradient<bf16> gradient, float* partial, int key, int column,
                                  float x, float y) const {
        if (partial) {
            float* pair = partial + key * HEAD_DIM + column;
            *reinterpret_cast<float2*>(pair) = make_float2(x, y);
            return;
        }
        bf16* row = gradient.at + key_index(first_key + key) * HEAD_DIM;
        u32* pair = reinterpret_cast<u32*>(row + column);
        *pair = accumulate_bf16(pair, x, y, gradient.add);
    }
    DEVICE_MEMBER KeyTile(int4 tile, int4 piece, int kv_head, int kv_heads, int window_or_block)
        : document_start(tile.x), kv_head(kv_head), kv_heads(kv_heads),
          window_or_block(window_or_block), first_key(tile.w), keys(piece.w), rows_begin(piece.x),
          rows_end(piece.y), slot(piece.z), row_index(tile.x, kv_head, kv_heads),
          key_index(tile.z, kv_head, kv_heads), lane(threadIdx.x % WARP),
          warp_key(threadIdx.x / WARP * WARP_KEYS),
          row_tiles((rows_end - rows_begin + TILE_ROWS - 1) / TILE_ROWS) {}
};

// Turns the scores and dout . v of keys (rows) and query rows (columns) into p and ds.
// `statistics`: lse / ln 2 and delta of the query rows in shared memory, from the first column of
// this lane on.
template <int N>
DEVICE void to_gradients(float (&s)[KEY_TILES][N][4], float (&ds)[KEY_TILES][N][4],
                         const float4* statistics, float scale) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        // Of the two rows that are this lane's columns.
        const float4 pair = statistics[4 * n];
#pragma unroll
        for (int m = 0; m < KEY_TILES; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float &p = s[m][n][i], &x = ds[m][n][i];
                p = exp2_approx(p * scale - (i % 2 ? pair.z : pair.x));
                x = p * (x - (i % 2 ? pair.w : pair.y));
            }
    }
}
