// What the query-centric kernels of sparse attention share: the heads that a warp owns, and the
// keys it walks.
//
// Given as macros: HEAD_DIM; GROUP, query heads per key/value head; HEAD_TILES, tiles of 16 of
// them; BLOCK_SIZE; SLICE, elements of the head that a warp accumulates, a divisor. WARPS of a
// block is a constant.
#pragma once
#include "rows.cuh"

constexpr int THREADS = WARPS * WARP;
constexpr int WORDS = Row<HEAD_DIM>::WORDS;
constexpr int SLICE_WORDS = Row<SLICE>::WORDS;

// The token and the 16 heads of a warp. Grid: (tokens / WARPS, H * HEAD_TILES, slices of the head).
struct HeadTile {
    int token, kv_head, first_head, g, c;
    i64 first_row;
    bool valid;

    DEVICE_MEMBER HeadTile(int tokens, int kv_heads) {
        token = blockIdx.x * WARPS + threadIdx.x / WARP;
        kv_head = blockIdx.y / HEAD_TILES;
        first_head = blockIdx.y % HEAD_TILES * 16;
        g = threadIdx.x % WARP / 4;
        c = threadIdx.x % 4;
        valid = token < tokens;
        first_row = (i64(token) * kv_heads + kv_head) * GROUP + first_head;
    }
    DEVICE_MEMBER bool has_head(int half) const {
        return GROUP % 16 == 0 || first_head + g + 8 * half < GROUP;
    }
    // The row of q that is row g + 8 half here.
    DEVICE_MEMBER i64 row(int half) const { return first_row + g + 8 * half; }
    // Rows past the group repeat its last head; their results are not stored.
    DEVICE_MEMBER void load_rows(u32 (&x)[2][WORDS], const bf16* from) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = g + 8 * half;
            const int head = GROUP % 16 == 0 ? row : min(row, GROUP - 1 - first_head);
            Row<HEAD_DIM>::load(x[half], from + (first_row + head) * HEAD_DIM, c);
        }
    }
};

// The keys of a token's selected blocks, numbered consecutively.
struct SelectedKeys {
    const int* indices;
    i64 row_stride;
    int start, position, visible, steps, g, c;

    DEVICE_MEMBER SelectedKeys(const HeadTile& tile, const int* all_indices,
                               const int* document_start, int slots, int kv_heads)
        : row_stride(i64(kv_heads) * HEAD_DIM), g(tile.g), c(tile.c) {
        indices = all_indices + (i64(tile.token) * kv_heads + tile.kv_head) * slots;
        start = load_read_only(document_start + tile.token);
        position = tile.token - start;
        int used = 0;
        for (int first = 0; first < slots; first += WARP) {
            const int slot = first + threadIdx.x % WARP;
            const bool is_used = slot < slots && load_read_only(indices + slot) >= 0;
            used += __popc(__ballot_sync(ALL_LANES, is_used));
        }
        visible = (used - 1) * BLOCK_SIZE + position % BLOCK_SIZE + 1;
        steps = (visible + 15) / 16;
    }
    // Tokens of the keys 16 step + g and + 8; past the visible ones the last of them, the token
    // itself.
    DEVICE_MEMBER void rows(i64 (&at)[2], int step) const {
        int block = 0;
        if constexpr (BLOCK_SIZE % 16 == 0)
            block = load_read_only(indices + step * 16 / BLOCK_SIZE);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int key = min(16 * step + g + 8 * r, visible - 1);
            if constexpr (BLOCK_SIZE % 16 != 0) block = load_read_only(indices + key / BLOCK_SIZE);
            at[r] = start + i64(block) * BLOCK_SIZE + key % BLOCK_SIZE;
        }
    }
    // The row of token `at` of keys or values; `head` points to the first row of their head, or to
    // a slice of it.
    DEVICE_MEMBER const bf16* row(const bf16* head, i64 at) const { return head + at * row_stride; }
    // Loads the rows of two tokens, as many columns as `x` holds.
    template <int N>
    DEVICE_MEMBER void load(u32 (&x)[2][N], const bf16* head, const i64 (&at)[2]) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) Row<8 * N>::load(x[r], row(head, at[r]), c);
    }
    // Replaces the scores of keys that do not exist, in accumulators whose columns are the keys of
    // a step.
    DEVICE_MEMBER void mask(float (&s)[2][4], int step, float value) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (16 * step + 8 * r + 2 * c + i % 2 >= visible) s[r][i] = value;
            }
        }
    }
};
