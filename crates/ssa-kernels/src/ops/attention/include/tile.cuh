// Tiles in shared memory, and the fragments that `mma` reads from them. The type of a tile says how
// its rows are laid out, the type of its fragments which operand they are: a load that does not fit
// does not compile.
//
// Given as macros: those of attention.cuh; ROW_BYTES, the bytes of a row of a tile; TILE_ROWS and
// TILE_KEYS, the packed rows and keys of a tile of scores; WARPS of a block; STAGES of a ring.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

constexpr int THREADS = WARPS * WARP;
// Columns that products run over, HEAD_DIM and zeros, and steps of products, 16 deep.
constexpr int DEPTH_STEPS = ceil_div(HEAD_DIM, 16);
constexpr int DEPTH = 16 * DEPTH_STEPS;
// Columns of an accumulator, 8 wide.
constexpr int DEPTH_COLUMNS = DEPTH / 8;

// Starts the copies of rows `from..from + ROWS` to a tile; rows from `end` on become zeros.
template <typename Tile, typename Rows>
DEVICE void copy_rows(const Tile& tile, const bf16* source, const Rows& rows, int from, int end) {
    constexpr int CHUNKS = Tile::ROWS * DEPTH_COLUMNS;
#pragma unroll
    for (int i = 0; i < ceil_div(CHUNKS, THREADS); ++i) {
        const int index = i * THREADS + threadIdx.x;
        const int row = index / DEPTH_COLUMNS, chunk = index % DEPTH_COLUMNS;
        if (CHUNKS % THREADS != 0 && row >= Tile::ROWS) break;
        copy_async16(
            tile.address + Tile::offset(row, chunk),
            source + rows(from + row) * HEAD_DIM + chunk * 8,
            from + row < end && (HEAD_DIM == DEPTH || chunk * 8 < HEAD_DIM));
    }
}

// A lane's own address of its part of the first fragment. Others are `row` rows further, a multiple
// of 8, and `step` steps of 16 columns; chunks are swapped by XOR, so that two chunks further
// is one more XOR.
struct FragmentAddress {
    u32 lane_address;

    DEVICE_MEMBER u32 at(int row, int step) const {
        return (lane_address ^ u32(step * 32)) + row * ROW_BYTES;
    }
};

// Rows are rows of `a`: one 16 x 16 fragment per load.
struct FragmentsA {
    FragmentAddress address;

    DEVICE_MEMBER void load(u32 (&a)[4], int row, int step) const {
        ldmatrix4(a[0], a[1], a[2], a[3], address.at(row, step));
    }
};

// Rows are columns of `b` (scores: keys against depth): two fragments of 8 columns, 16 deep.
struct FragmentsB {
    FragmentAddress address;

    DEVICE_MEMBER void load(u32 (&b)[2][2], int row, int step) const {
        ldmatrix4(b[0][0], b[0][1], b[1][0], b[1][1], address.at(row, step));
    }
};

// Rows are rows of `b` (outputs: keys times values), read transposed: 16 deep, two fragments of 8
// columns.
struct FragmentsBTransposed {
    FragmentAddress address;

    DEVICE_MEMBER void load(u32 (&b)[2][2], int row, int step) const {
        ldmatrix4_trans(b[0][0], b[0][1], b[1][0], b[1][1], address.at(row, step));
    }
};

// Whole rows one after the other, chunks swapped within a row by `swizzle`. The rows of a warp can
// be read and written on their own.
template <int N> struct Tile {
    static constexpr int ROWS = N;
    static constexpr int BYTES = ROWS * ROW_BYTES;
    u32 address;

    DEVICE_MEMBER static u32 offset(int row, int chunk) { return swizzle<ROW_BYTES>(row, chunk); }
    DEVICE_MEMBER u32 end() const { return address + BYTES; }

    // Fragments of the rows from `first_row` on, a multiple of 16.
    DEVICE_MEMBER FragmentsA a(int first_row, int lane) const {
        return {{address + first_row * ROW_BYTES + offset(lane % 16, lane / 16)}};
    }
    DEVICE_MEMBER FragmentsB b(int lane) const {
        return {{address + offset(lane % 8 + lane / 16 * 8, lane / 8 % 2)}};
    }
    DEVICE_MEMBER FragmentsBTransposed b_transposed(int lane) const {
        return {{address + offset(lane % 16, lane / 16)}};
    }
};

// Two tiles whose rows belong together: keys and values, or queries and dout.
template <typename TileType> struct TilePair {
    static constexpr int BYTES = 2 * TileType::BYTES;
    TileType first, second;

    DEVICE_MEMBER explicit TilePair(u32 address)
        : first{address}, second{address + TileType::BYTES} {}
    DEVICE_MEMBER u32 end() const { return second.end(); }

    // Starts the copies of the same rows of two tensors.
    template <typename Rows>
    DEVICE_MEMBER void copy(const bf16* to_first, const bf16* to_second, const Rows& rows, int from,
                            int end) const {
        copy_rows(first, to_first, rows, from, end);
        copy_rows(second, to_second, rows, from, end);
    }
};

// A ring of STAGES tile pairs that the block walks in step: groups of `cp.async`, and a barrier of
// the block for every stage. copy(stage, index) starts the copies of pair `index`.
template <typename Pair, typename Copy> struct GroupRing {
    static constexpr int BYTES = STAGES * Pair::BYTES;
    u32 address;
    int pairs;
    Copy copy;

    DEVICE_MEMBER Pair stage(int index) const {
        return Pair(address + index % STAGES * Pair::BYTES);
    }
    DEVICE_MEMBER u32 end() const { return address + BYTES; }

    // Starts the first STAGES - 1 pairs.
    DEVICE_MEMBER void fill() const {
#pragma unroll
        for (int index = 0; index < STAGES - 1; ++index) start(index);
    }
    // Waits for the oldest pair in flight.
    DEVICE_MEMBER void wait() const {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
    }
    // Waits for pair `index`, then starts the one that replaces the pair before it.
    DEVICE_MEMBER void advance(int index) const {
        wait();
        start(index + STAGES - 1);
    }

private:
    // After the last pair this is an empty group, so that the number of groups stays the same.
    DEVICE_MEMBER void start(int index) const {
        if (index < pairs) copy(stage(index), index);
        copy_async_commit();
    }
};

template <typename Pair, typename Copy>
DEVICE GroupRing<Pair, Copy> group_ring(u32 address, int pairs, const Copy& copy) {
    return {address, pairs, copy};
}

// ---- Accumulators

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
