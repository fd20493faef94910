// What the attention kernels on tensor cores share: packed query rows, tiles in shared memory,
// fragments of both. HEAD_DIM (a multiple of 8, at most 256) and GROUP (query heads of a key/value
// head) are defined by the caller.
#pragma once
#include "mma.cuh"

static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "rows are copied in chunks of 8 elements");

__device__ constexpr int round_up(int x, int step) { return (x + step - 1) / step * step; }
__device__ constexpr int next_power_of_two(int x) {
    int power = 1;
    while (power < x) power *= 2;
    return power;
}

// Columns that products run over; those behind HEAD_DIM are zeros.
constexpr int DEPTH = round_up(HEAD_DIM, 16);
// A row of a tile in shared memory, a power of two so that `swizzle` applies.
constexpr int ROW_BYTES = next_power_of_two(DEPTH) * 2;
constexpr int CHUNKS = DEPTH / 8;
// Columns of accumulators, 8 wide, and steps of products, 16 deep.
constexpr int DEPTH_COLUMNS = DEPTH / 8;
constexpr int DEPTH_STEPS = DEPTH / 16;

template <int ROWS> constexpr int TILE_BYTES = ROWS * ROW_BYTES;

// The query rows of one document and key/value head: row r is head r % GROUP of the group at token
// r / GROUP. Packed like this the heads of a group share every key tile, a tile of rows spans few
// tokens (so little of the diagonal is wasted), and the gradient of a key is a sum over rows of one
// list.
struct PackedRows {
    i64 first;
    int skip;

    __device__ PackedRows(int document_start, int kv_head, int kv_heads)
        : first((i64(document_start) * kv_heads + kv_head) * GROUP), skip((kv_heads - 1) * GROUP) {}
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

// Where the rows of one document and key/value head begin among the row statistics `[H, N, GROUP]`.
DEVICE i64 statistics_row(int kv_head, int tokens, i64 token) { return (i64(kv_head) * tokens + token) * GROUP; }

// Starts the copy of rows `from..from + ROWS` to where place(row, chunk) says; rows from `end` on
// become zeros.
template <int ROWS, int THREADS, typename Rows, typename Place>
DEVICE void copy_rows(const bf16* source, const Rows& rows, int from, int end, const Place& place) {
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; ++i) {
        const int index = i * THREADS + threadIdx.x;
        const int row = index / CHUNKS, chunk = index % CHUNKS;
        if ((ROWS * CHUNKS) % THREADS != 0 && row >= ROWS) break;
        copy_async16(
            place(row, chunk), source + rows(from + row) * HEAD_DIM + chunk * 8,
            from + row < end && (HEAD_DIM == DEPTH || chunk * 8 < HEAD_DIM));
    }
}

template <int ROWS, int THREADS, typename Rows>
DEVICE void copy_tile(u32 tile, const bf16* source, const Rows& rows, int from, int end) {
    copy_rows<ROWS, THREADS>(
        source, rows, from, end, [&](int row, int chunk) { return tile + swizzle<ROW_BYTES>(row, chunk); });
}

// ---- A ring of PLACES tiles in shared memory that the block walks in step; copy(index) starts the
// copies of one -----------

// Starts the first PLACES - 1 of `tiles`. A place without a tile is an empty group of copies, so
// that all count alike.
template <int PLACES, typename Copy> DEVICE void fill_ring(int tiles, const Copy& copy) {
#pragma unroll
    for (int i = 0; i < PLACES - 1; ++i) {
        if (i < tiles) copy(i);
        copy_async_commit();
    }
}

// Waits for the oldest tile under way.
template <int PLACES> DEVICE void wait_for_tile() {
    copy_async_wait<PLACES - 2>();
    __syncthreads();
}

// Waits for tile `index`, then starts the one that takes the place of the tile before it.
template <int PLACES, typename Copy> DEVICE void advance_ring(int index, int tiles, const Copy& copy) {
    wait_for_tile<PLACES>();
    if (index + PLACES - 1 < tiles) copy(index + PLACES - 1);
    copy_async_commit();
}

// ---- Fragments
// -------------------------------------------------------------------------------------------------------------

// The three ways in which fragments are read from a tile. Each is a lane's own address for the
// first fragment; `fragment_at` moves it by rows (a multiple of 8) and by steps of 16 columns. Rows
// are rows of `a`: one 16 x 16 fragment a load.
DEVICE u32 fragment_a(u32 tile, int lane) {
    return tile + swizzle<ROW_BYTES>(lane % 16, lane / 16);
}
// Rows are columns of `b` (scores: keys against depth): two fragments of 8 columns, 16 deep.
DEVICE u32 fragment_b(u32 tile, int lane) {
    return tile + swizzle<ROW_BYTES>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
// Rows are rows of `b` (outputs: keys times values), to be read transposed: 16 deep, two fragments
// of 8 columns.
DEVICE u32 fragment_b_trans(u32 tile, int lane) {
    return tile + swizzle<ROW_BYTES>(lane % 16, lane / 16);
}
// The exchange of chunks is an exclusive or, so that two chunks further is one more exclusive or.
DEVICE u32 fragment_at(u32 lane_address, int row, int columns16) {
    return (lane_address ^ u32(columns16 * 32)) + row * ROW_BYTES;
}

DEVICE void load_a(u32 (&a)[4], u32 address) { ldmatrix4(a[0], a[1], a[2], a[3], address); }
DEVICE void load_b(u32 (&b)[2][2], u32 address) { ldmatrix4(b[0][0], b[0][1], b[1][0], b[1][1], address); }
DEVICE void load_b_trans(u32 (&b)[2][2], u32 address) { ldmatrix4_trans(b[0][0], b[0][1], b[1][0], b[1][1], address); }

// d[m][n] += a[m] * b[n] for the columns n, n + 1.
template <int M, int N>
DEVICE void mma_pair(float (&d)[M][N][4], int n, const u32 (&a)[M][4], const u32 (&b)[2][2]) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
        mma(d[m][n], a[m], b[0]);
        mma(d[m][n + 1], a[m], b[1]);
    }
}

template <int M, int N> DEVICE void set_zero(float (&x)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) x[m][n][i] = 0.0f;
}

// 16 columns of an accumulator, rounded, as the `a` of the next product.
template <int M, int N> DEVICE void to_a(u32 (&a)[M][4], const float (&x)[M][N][4], int n) {
#pragma unroll
    for (int m = 0; m < M; ++m) pack_operand(a[m], x[m][n], x[m][n + 1]);
}

// ---- Which keys a query sees: those of `visibility.rs`
// ---------------------------------------------------------------------- `reach` is the window in
// tokens, or the size of a block where keys are block means (KEYS_ARE_BLOCKS is 1). The range
// `seen_from..seen_to` is counted from the first key of the document; neither end moves back as
// positions advance.
#if KEYS_ARE_BLOCKS
DEVICE int seen_from(int, int) { return 0; }
DEVICE int seen_to(int position, int reach) { return (position + 1) / reach; }
#else
DEVICE int seen_from(int position, int reach) { return max(0, position + 1 - reach); }
DEVICE int seen_to(int position, int) { return position + 1; }
#endif
