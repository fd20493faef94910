// Rows of bf16 in registers in one layout that serves every operand of mma.m16n8k16, loaded from
// device memory without a detour through shared memory.
//
// A product sums over its inner dimension in any order, so which element of a row sits in which
// inner column is free as long as both operands agree. Here lane (g = lane / 4, c = lane % 4) holds
// of its row the 16 bytes number c, c + 4, ...: whole vectors, and 64 contiguous bytes of a row by
// 4 lanes. With w for a register and `first(w, c)` for its elements: operand a: rows g and g + 8,
// inner dimension along the row {x[0][2s], x[1][2s], x[0][2s+1], x[1][2s+1]} at step s operand b:
// column g is row g, inner dimension along the row {x[r][2s], x[r][2s+1]}, r = which 8 rows operand
// b': inner dimension is the 16 rows, columns along them: the 8x8 transposes of x[0][w] and x[1][w]
// accumulator of a product with b': tile w holds elements first(w, c), + 1 of rows g and g + 8, so
// results leave as they came, in whole vectors.
#pragma once
#include "mma.cuh"

// WORDS registers loaded at once.
template <int WORDS> struct Vector;
template <> struct Vector<4> {
    typedef uint4 Type;
};
template <> struct Vector<2> {
    typedef uint2 Type;
};

template <int D> struct Row {
    static_assert(D % 16 == 0, "rows are multiples of 16 elements");
    // Registers a row takes in each of its 4 lanes.
    static constexpr int WORDS = D / 8;
    // Registers loaded at once: 16 bytes where the row allows.
    static constexpr int VECTOR = D % 32 == 0 ? 4 : 2;

    // First of the two elements in register w of lane c.
    DEVICE int first(int w, int c) { return (w / VECTOR * 4 + c) * 2 * VECTOR + w % VECTOR * 2; }

    // The row is not written while the kernel runs.
    DEVICE void load(u32 (&x)[WORDS], const bf16* row, int c) {
#pragma unroll
        for (int w = 0; w < WORDS; w += VECTOR) {
            const bf16* p = row + first(w, c);
            if constexpr (VECTOR == 4) {
                const uint4 raw = __ldg(reinterpret_cast<const uint4*>(p));
                x[w] = raw.x, x[w + 1] = raw.y, x[w + 2] = raw.z, x[w + 3] = raw.w;
            } else {
                const uint2 raw = __ldg(reinterpret_cast<const uint2*>(p));
                x[w] = raw.x, x[w + 1] = raw.y;
            }
        }
    }

    // As load, for rows of 64 elements or a multiple: odd rows load their vectors pairwise in the
    // other order, so that the eight rows of one instruction use all banks of the cache, at the
    // price of exchanging registers afterwards. Halves the time in the first level cache; for
    // kernels that wait for it.
    DEVICE void load_alternating(u32 (&x)[WORDS], const bf16* row, int c) {
        if constexpr (D % 64 != 0) {
            load(x, row, c);
        } else {
            const bool odd = threadIdx.x & 4;
#pragma unroll
            for (int w = 0; w < WORDS; w += 8) {
                const bf16* p = row + first(w, c);
                const uint4 a = __ldg(reinterpret_cast<const uint4*>(p + (odd ? 32 : 0)));
                const uint4 b = __ldg(reinterpret_cast<const uint4*>(p + (odd ? 0 : 32)));
                x[w] = odd ? b.x : a.x, x[w + 1] = odd ? b.y : a.y, x[w + 2] = odd ? b.z : a.z, x[w + 3] = odd ? b.w : a.w;
                x[w + 4] = odd ? a.x : b.x, x[w + 5] = odd ? a.y : b.y, x[w + 6] = odd ? a.z : b.z, x[w + 7] = odd ? a.w : b.w;
            }
        }
    }

    // Adds to or sets a row of bf16 in device memory; values as accumulators hold them, two to a
    // register.
    DEVICE void store(bf16* row, const float (&x)[WORDS][2], int c, int add) {
#pragma unroll
        for (int w = 0; w < WORDS; w += VECTOR) {
            u32 words[4];
            u32* p = reinterpret_cast<u32*>(row + first(w, c));
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) words[i] = accumulate_bf16(p + i, x[w + i][0], x[w + i][1], add);
            if constexpr (VECTOR == 4) {
                *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
            } else {
                *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
            }
        }
    }
};

// The transpose of an 8x8 matrix that the warp holds with row lane / 4, columns 2 (lane % 4) and +
// 1 in each lane.
DEVICE u32 transpose8x8(u32 x) {
    u32 r;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(x));
    return r;
}

// d += a b with b = rows of x as columns: 16 rows of x give two tiles of 8 columns.
template <int WORDS>
DEVICE void mma_rows(float (&d)[2][4], const u32 (&a)[2][WORDS], const u32 (&b)[2][WORDS]) {
#pragma unroll
    for (int s = 0; s < WORDS; s += 2) {
        const u32 left[4] = {a[0][s], a[1][s], a[0][s + 1], a[1][s + 1]};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const u32 right[2] = {b[r][s], b[r][s + 1]};
            mma(d[r], left, right);
        }
    }
}

// d += p x with p of 16x16, rounded, and 16 rows x.
template <int WORDS>
DEVICE void mma_transposed(float (&d)[WORDS][4], const u32 (&p)[4], const u32 (&x)[2][WORDS]) {
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
        const u32 right[2] = {transpose8x8(x[0][w]), transpose8x8(x[1][w])};
        mma(d[w], p, right);
    }
}

// d += p x for a slice of the columns of 16 rows x, of which `row` and `row_below` are those of
// this lane from the slice on. One that is not the whole is loaded again, since registers have no
// run-time index.
template <int COLUMNS, int WORDS>
DEVICE void mma_transposed_slice(float (&d)[Row<COLUMNS>::WORDS][4], const u32 (&p)[4], const u32 (&x)[2][WORDS],
                                 const bf16* row, const bf16* row_below, int c) {
    if constexpr (Row<COLUMNS>::WORDS == WORDS) {
        mma_transposed(d, p, x);
    } else {
        u32 part[2][Row<COLUMNS>::WORDS];
        Row<COLUMNS>::load(part[0], row, c);
        Row<COLUMNS>::load(part[1], row_below, c);
        mma_transposed(d, p, part);
    }
}

// Row g + 8 half of an accumulator, times `factor`, as Row::store takes it.
template <int WORDS> DEVICE void scaled_row(float (&row)[WORDS][2], const float (&x)[WORDS][4], int half, float factor) {
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
        row[w][0] = x[w][2 * half] * factor;
        row[w][1] = x[w][2 * half + 1] * factor;
    }
}
