// What the attention kernels on tensor cores share: packed query rows, tiles in shared memory, fragments of both.
// HEAD_DIM (a multiple of 8, at most 256) and GROUP (query heads of a key/value head) are defined by the caller.
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

template <int ROWS> constexpr int TILE_BYTES = ROWS * ROW_BYTES;

// The query rows of one document and key/value head: row r is head r % GROUP of the group at token r / GROUP. Packed like
// this the heads of a group share every key tile, a tile of rows spans few tokens (so little of the diagonal is wasted),
// and the gradient of a key is a sum over rows of one list.
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

// Starts the copy of rows `from..from + ROWS` into a tile; rows from `end` on become zeros.
template <int ROWS, int THREADS, typename Rows>
DEVICE void copy_tile(u32 tile, const bf16* source, const Rows& rows, int from, int end) {
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; ++i) {
        const int index = i * THREADS + threadIdx.x;
        const int row = index / CHUNKS, chunk = index % CHUNKS;
        if ((ROWS * CHUNKS) % THREADS != 0 && row >= ROWS) break;
        const bool valid = from + row < end && (HEAD_DIM == DEPTH || chunk * 8 < HEAD_DIM);
        copy_async16(tile + swizzle<ROW_BYTES>(row, chunk), source + rows(from + row) * HEAD_DIM + chunk * 8, valid);
    }
}

// The three ways in which fragments are read from a tile. Each is a lane's own address for the first fragment;
// `fragment_at` moves it by rows (a multiple of 8) and by steps of 16 columns.
// Rows are rows of `a`: one 16 x 16 fragment a load.
DEVICE u32 fragment_a(u32 tile, int lane) {
    return tile + swizzle<ROW_BYTES>(lane % 16, lane / 16);
}
// Rows are columns of `b` (scores: keys against depth): two fragments of 8 columns, 16 deep.
DEVICE u32 fragment_b(u32 tile, int lane) {
    return tile + swizzle<ROW_BYTES>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
// Rows are rows of `b` (outputs: keys times values), to be read transposed: 16 deep, two fragments of 8 columns.
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
    for (int m = 0; m < M; ++m) {
        a[m][0] = pack_bf16(x[m][n][0], x[m][n][1]);
        a[m][1] = pack_bf16(x[m][n][2], x[m][n][3]);
        a[m][2] = pack_bf16(x[m][n + 1][0], x[m][n + 1][1]);
        a[m][3] = pack_bf16(x[m][n + 1][2], x[m][n + 1][3]);
    }
}

// Sum or maximum over the four lanes that share a row of an accumulator.
DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// ---- Which keys a query sees: those of `visibility.rs` ----------------------------------------------------------------------
// `reach` is the window in tokens, or the size of a block where keys are block means (KEYS_ARE_BLOCKS is 1). The range
// `seen_from..seen_to` is counted from the first key of the document; neither end moves back as positions advance.
#if KEYS_ARE_BLOCKS
DEVICE int seen_from(int, int) { return 0; }
DEVICE int seen_to(int position, int reach) { return (position + 1) / reach; }
#else
DEVICE int seen_from(int position, int reach) { return max(0, position + 1 - reach); }
DEVICE int seen_to(int position, int) { return position + 1; }
#endif

// Removes the scores of keys that their row does not see. `row` is the first packed row of the warp, `key` the first column.
template <int M, int N>
DEVICE void mask_keys(float (&s)[M][N][4], int row, int rows, int key, int reach, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int position = min(row + 16 * m + 8 * half + lane / 4, rows - 1) / GROUP;
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

// ---- Online softmax of the two rows that a lane holds of each row tile ---------------------------------------------------

// Scores are scaled by `scale` = softmax_scale / ln 2 on their way into 2^x, so that no product is spent on it.
template <int M> struct Softmax {
    float largest[M][2], sum[M][2];

    __device__ __forceinline__ Softmax() {
#pragma unroll
        for (int m = 0; m < M; ++m) largest[m][0] = largest[m][1] = -infinity(), sum[m][0] = sum[m][1] = 0.0f;
    }

    // What to subtract from scaled scores: finite also where a row has seen nothing.
    __device__ __forceinline__ float reference(int m, int half, float scale) const {
        return largest[m][half] == -infinity() ? 0.0f : largest[m][half] * scale;
    }

    // Takes in the largest scores that a lane found in a tile, and moves what was summed to the new reference.
    template <int N>
    __device__ __forceinline__ void advance(float (&o)[M][N][4], const float (&found)[M][2], float scale) {
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
    template <int N>
    __device__ __forceinline__ void finish(
        float (&o)[M][N][4], float* lse, const PackedRows& row_index, int row, int rows, float scale, int lane
    ) {
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
                const int r = row + 16 * m + 8 * half + lane / 4;
                if (lane % 4 == 0 && r < rows)
                    lse[row_index(r)] = total > 0.0f ? (largest[m][half] * scale + __log2f(total)) * LN_2 : -infinity();
            }
    }
};

// Writes the rows of a warp in whole chunks, by way of `tile`, shared memory that is this warp's alone. `add` as of gradients.
template <int M, int N>
DEVICE void write_rows(
    u8* tile, bf16* to, const float (&x)[M][N][4], const PackedRows& row_index, int row, int rows, float factor, int add,
    int lane
) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < N; ++n)
                *reinterpret_cast<u32*>(tile + swizzle<ROW_BYTES>(16 * m + 8 * half + lane / 4, n) + lane % 4 * 4) =
                    pack_bf16(x[m][n][2 * half] * factor, x[m][n][2 * half + 1] * factor);
    __syncwarp();
    for (int i = lane; i < 16 * M * (HEAD_DIM / 8); i += WARP) {
        const int r = i / (HEAD_DIM / 8), chunk = i % (HEAD_DIM / 8);
        if (row + r >= rows) break;
        const u8* source = tile + swizzle<ROW_BYTES>(r, chunk);
        uint4* target = reinterpret_cast<uint4*>(to + row_index(row + r) * HEAD_DIM + chunk * 8);
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

// Eight bytes as copy_async16.
DEVICE void copy_async8(u32 to_shared, const void* from, bool valid) {
    const u32 bytes = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to_shared), "l"(from), "r"(bytes) : "memory");
}

// ---- Gradients of keys ------------------------------------------------------------------------------------------------------

// Where the gradient of a tile of keys goes: to its tensor, or as a partial sum to `[keys of a tile, HEAD_DIM]` of f32.
struct KeyGradient {
    bf16* gradient;
    int add;
    float* partial;

    __device__ __forceinline__ void write(i64 row, int tile_row, int column, float x, float y) const {
        if (partial) {
            *reinterpret_cast<float2*>(partial + tile_row * HEAD_DIM + column) = make_float2(x, y);
            return;
        }
        u32* pair = reinterpret_cast<u32*>(gradient + row * HEAD_DIM + column);
        if (add) {
            const float2 old = unpack_bf16(*pair);
            x += old.x, y += old.y;
        }
        *pair = pack_bf16(x, y);
    }
};

// Writes the gradients of a warp's keys, columns from `first_column`, to the tensors or (slot >= 0) as a partial sum.
template <int TILE_KEYS, int M, int N>
DEVICE void write_keys(
    const float (&dk_keys)[M][N][4], const float (&dv_keys)[M][N][4], bf16* dk, int add_dk, bf16* dv, int add_dv,
    float* partial, int slot, const KeyRows& key_index, int kv_head, int kv_heads, int first_key, int warp_key, int keys,
    float softmax_scale, int first_column, int lane
) {
    constexpr i64 PARTIAL = TILE_KEYS * HEAD_DIM;
    float* partial_dk = slot < 0 ? nullptr : partial + (i64(slot) * kv_heads + kv_head) * 2 * PARTIAL;
    const KeyGradient to_dk{dk, add_dk, partial_dk};
    const KeyGradient to_dv{dv, add_dv, partial_dk ? partial_dk + PARTIAL : nullptr};
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
                const float *a = &dk_keys[m][n][2 * half], *b = &dv_keys[m][n][2 * half];
                to_dk.write(key_index(first_key + row), row, column, a[0] * softmax_scale, a[1] * softmax_scale);
                to_dv.write(key_index(first_key + row), row, column, b[0], b[1]);
            }
        }
}
