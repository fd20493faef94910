// What the attention kernels over a range of keys share: packed query rows, key rows, and which
// keys a query sees.
//
// Given as macros: HEAD_DIM (a multiple of 8, at most 256), GROUP (query heads per key/value head)
// and, for kernels that mask scores, KEYS_ARE_BLOCKS (1 where keys are block means).
#pragma once
#include "common.cuh"

static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "rows are copied in chunks of 8 elements");

// The query rows of one document and key/value head: row r is head r % GROUP of the group at token
// r / GROUP. The heads of a group then share every key tile, a tile of rows spans few tokens (so
// little of the diagonal is wasted), and the gradient of a key is a sum over one list of rows.
struct PackedRows {
    i64 first;
    int skip;

    __device__ PackedRows(int document_start, int kv_head, int kv_heads)
        : first((i64(document_start) * kv_heads + kv_head) * GROUP),
          skip((kv_heads - 1) * GROUP) {}
    // Index into `[N, HQ]`.
    __device__ i64 operator()(int row) const { return first + row + i64(row / GROUP) * skip; }
};

// The key rows of one document and key/value head.
struct KeyRows {
    i64 first;
    int stride;

    __device__ KeyRows(int first_key, int kv_head, int kv_heads)
        : first(i64(first_key) * kv_heads + kv_head), stride(kv_heads) {}
    // Index into `[N, H]` or `[C, H]`.
    __device__ i64 operator()(int key) const { return first + i64(key) * stride; }
};

// First row of a document and key/value head in the row statistics `[H, N, GROUP]`.
DEVICE i64 statistics_row(int kv_head, int tokens, i64 token) {
    return (i64(kv_head) * tokens + token) * GROUP;
}

// The keys that a query sees, as in `visibility.rs`: the range `seen_from..seen_to`, counted from
// the first key of the document. Neither end decreases as positions increase. `window_or_block` is
// the window in tokens, or the block size where keys are block means.
#if KEYS_ARE_BLOCKS
DEVICE int seen_from(int, int) { return 0; }
DEVICE int seen_to(int position, int block_size) { return (position + 1) / block_size; }
#else
DEVICE int seen_from(int position, int window) { return max(0, position + 1 - window); }
DEVICE int seen_to(int position, int) { return position + 1; }
#endif
