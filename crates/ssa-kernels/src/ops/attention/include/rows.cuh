// Rows of bf16 in registers, in one layout that serves every operand of mma.m16n8k16 and is loaded
// from device memory directly, not through shared memory.
//
// A product sums over its inner dimension in any order, so which element of a row sits in which
// inner column is free as long as both operands agree. Here lane (g = lane / 4, c = lane % 4) holds
// the vectors c, c + 4, ... of 16 bytes of its row, so that 4 lanes load 64 contiguous bytes. With
// w for a register and `first(w, c)` for its elements:
//
//   operand a    rows g and g + 8, inner dimension along the row, at step s:
//                {x[0][2s], x[1][2s], x[0][2s+1], x[1][2s+1]}
//   operand b    column g is row g, inner dimension along the row: {x[r][2s], x[r][2s+1]}, where r
//                selects 8 of the 16 rows
//   operand b'   inner dimension is the 16 rows, columns along them: the 8x8 transposes of x[0][w]
//                and x[1][w]
//
// In the accumulator of a product with b', tile w holds the elements first(w, c) and + 1 of the
// rows g and g + 8, so results are stored in the same whole vectors.
#pragma once
#include "mma.cuh"

// The type of a load of WORDS registers.
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
    // Registers of a load: 16 bytes where the row allows.
    static constexpr int VECTOR = D % 32 == 0 ? 4 : 2;

    // First of the two elements in register w of lane c.
    DEVICE int first(int w, int c) { return (w / VECTOR * 4 + c) * 2 * VECTOR + w % VECTOR * 2; }

    // The row is not written while the kernel runs.
    DEVICE void load(u32 (&x)[WORDS], const bf16* row, int c) {
        load_vectors<0>(x, row + first(0, c));
    }

    // As load, for rows of 64 elements or a multiple: odd rows load their vectors pairwise in the
    // other order, so that the eight rows of one instruction use all banks of the cache, at the
    // cost of exchanging registers afterwards. Halves the time in the L1 cache; for kernels that it
    // bounds. Loads the row that is BELOW rows after `row`: the load instructions add a constant,
    // so that rows at constant distances share addresses.
    template <int BELOW> DEVICE void load_alternating(u32 (&x)[WORDS], const bf16* row, int c) {
        if constexpr (D % 64 != 0) {
            load(x, row + BELOW * D, c);
        } else {
            const bool odd = threadIdx.x & 4;
            const bf16* lane = row + first(0, c);
            load_pairs<0, BELOW * D / 8>(x, lane + (odd ? 32 : 0), lane + (odd ? 0 : 32), odd);
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
            for (int i = 0; i < VECTOR; ++i)
                words[i] = accumulate_bf16(p + i, x[w + i][0], x[w + i][1], add);
            if constexpr (VECTOR == 4) {
                *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
            } else {
                *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
            }
        }
    }

private:
    using LaneVector = typename Vector<VECTOR>::Type;

    // The vectors of a lane are every fourth from `lane` on, which points to an element, as `row`
    // does: the compiler adds up offsets only if they count the same unit.
    template <int W> DEVICE void load_vectors(u32 (&x)[WORDS], const bf16* lane) {
        if constexpr (W < WORDS) {
            const auto* vectors = reinterpret_cast<const LaneVector*>(lane);
            unpack<W>(x, load_read_only<W / VECTOR * 4>(vectors));
            load_vectors<W + VECTOR>(x, lane);
        }
    }
    // The same for pairs of vectors; OFFSET counts vectors.
    template <int W, int OFFSET>
    DEVICE void load_pairs(u32 (&x)[WORDS], const bf16* left, const bf16* right, bool odd) {
        if constexpr (W < WORDS) {
            const uint4 a = load_read_only<OFFSET + W>(reinterpret_cast<const uint4*>(left));
            const uint4 b = load_read_only<OFFSET + W>(reinterpret_cast<const uint4*>(right));
            unpack<W>(x, select(odd, b, a));
            unpack<W + 4>(x, select(odd, a, b));
            load_pairs<W + 8, OFFSET>(x, left, right, odd);
        }
    }
    template <int W> DEVICE void unpack(u32 (&x)[WORDS], const uint2& v) {
        x[W] = v.x, x[W + 1] = v.y;
    }
    template <int W> DEVICE void unpack(u32 (&x)[WORDS], const uint4& v) {
        x[W] = v.x, x[W + 1] = v.y, x[W + 2] = v.z, x[W + 3] = v.w;
    }
    DEVICE uint4 select(bool first, const uint4& a, const uint4& b) {
        return make_uint4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z,
                          first ? a.w : b.w);
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
DEVICE void mma_transposed_slice(float (&d)[Row<COLUMNS>::WORDS][4], const u32 (&p)[4],
                                 const u32 (&x)[2][WORDS], const bf16* row,
                                 const bf16* row_below, int c) {
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
template <int WORDS>
DEVICE void scaled_row(float (&row)[WORDS][2], const float (&x)[WORDS][4], int half, float factor) {
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
        row[w][0] = x[w][2 * half] * factor;
        row[w][1] = x[w][2 * half + 1] * factor;
    }
}
