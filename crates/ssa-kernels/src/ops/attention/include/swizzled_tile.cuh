// Tiles that the tensor cores of sm_90a read from shared memory, and the ring in which they arrive.
// Given as macros: those of tile.cuh.
#pragma once
#include "barrier.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "tiles are whole swizzle atoms of 64 columns");

// N rows as columns of swizzle atoms: 64 columns of all rows, then the next 64.
template <int N> struct SwizzledTile {
    static constexpr int ROWS = N;
    static constexpr int BYTES = ROWS * ROW_BYTES;
    u32 address;

    DEVICE_MEMBER static u32 offset(int row, int chunk) {
        return operand_offset<ROWS>(row, chunk);
    }
    DEVICE_MEMBER u32 end() const { return address + BYTES; }

    // The tile as an operand whose columns are the depth of a product.
    DEVICE_MEMBER DepthOperand<ROWS> depth_operand() const { return {atom_descriptor(address, 0)}; }
    // The same of the 64 rows that are this warpgroup's.
    DEVICE_MEMBER DepthOperand<ROWS> warpgroup_operand() const {
        constexpr int WARPGROUP_BYTES = WARPGROUP_ROWS * ATOM_ROW_BYTES;
        return {atom_descriptor(address + threadIdx.x / WARPGROUP * WARPGROUP_BYTES, 0)};
    }
    // The tile as a second operand whose rows are the depth of a product.
    DEVICE_MEMBER RowOperand row_operand() const {
        return {atom_descriptor(address, ROWS * ATOM_ROW_BYTES)};
    }
    // Loads 16 rows from `row` on as the `a` of products.
    DEVICE_MEMBER void load_rows(u32 (&a)[DEPTH_STEPS][4], int row, int lane) const {
#pragma unroll
        for (int d = 0; d < DEPTH_STEPS; ++d) {
            const u32 lane_address = address + offset(row + lane % 16, 2 * d + lane / 16);
            ldmatrix4(a[d][0], a[d][1], a[d][2], a[d][3], lane_address);
        }
    }
};

// d = A B^T over the whole depth, with A the rows of a warpgroup.
template <int A_ROWS, int N>
DEVICE void depth_product(float (&d)[N / 8][4], DepthOperand<A_ROWS> a, DepthOperand<N> b) {
#pragma unroll
    for (int step = 0; step < DEPTH_STEPS; ++step)
        wgmma<N>(d, a.step(step), b.step(step), step > 0);
}

// The same with A in registers.
template <int N>
DEVICE void depth_product(float (&d)[N / 8][4], const u32 (&a)[DEPTH_STEPS][4], DepthOperand<N> b) {
#pragma unroll
    for (int step = 0; step < DEPTH_STEPS; ++step)
        wgmma_rows<N>(d, a[step], b.step(step), step > 0);
}

// d += A B over 16 N rows of B, with A in registers.
template <int N>
DEVICE void row_product(float (&d)[DEPTH_COLUMNS][4], const u32 (&a)[N][4], RowOperand b) {
#pragma unroll
    for (int n = 0; n < N; ++n) wgmma_rows_columns<HEAD_DIM>(d, a[n], b.step(n));
}

// A whole accumulator, rounded, as the `a` of row_product.
template <int N> DEVICE void pack_operands(u32 (&a)[N][4], const float (&x)[2 * N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) pack_operand(a[n], x[2 * n], x[2 * n + 1]);
}

// Two 64-bit barriers of a stage: full, empty.
constexpr int BARRIER_BYTES = 16;

// A ring of STAGES tile pairs that all threads fill and all warps read. Warps wait for tiles, not
// for each other, so that one warpgroup takes exponentials while another keeps the tensor cores
// busy: with a barrier of the block for every tile they would run in step. The barriers follow the
// stages. copy(stage, index) starts the copies of pair `index`.
template <typename Pair, typename Copy> struct BarrierRing {
    static constexpr int BYTES = STAGES * (Pair::BYTES + BARRIER_BYTES);
    u32 address;
    int pairs;
    Copy copy;

    DEVICE_MEMBER Pair stage(int index) const {
        return Pair(address + index % STAGES * Pair::BYTES);
    }
    DEVICE_MEMBER u32 end() const { return address + BYTES; }

    // Before the first use; ends with a barrier of the block.
    DEVICE_MEMBER void init() const {
        if (threadIdx.x == 0) {
#pragma unroll
            for (int index = 0; index < STAGES; ++index) {
                init_barrier(full(index), THREADS);
                init_barrier(empty(index), WARPS);
            }
            fence_barriers();
        }
        __syncthreads();
    }
    // Starts the first STAGES - 2 pairs. What was copied since `init` arrives with the first one.
    DEVICE_MEMBER void fill() const {
#pragma unroll
        for (int index = 0; index < STAGES - 2; ++index) start(index);
    }
    // Starts the pair that comes STAGES - 2 after `index`.
    DEVICE_MEMBER void prefetch(int index) const { start(index + STAGES - 2); }
    // Until pair `index` has arrived and products may read it.
    DEVICE_MEMBER void wait(int index) const {
        wait_barrier(full(index), index / STAGES & 1);
        fence_async_proxy();
    }
    // This warp no longer reads pair `index`.
    DEVICE_MEMBER void release(int index) const {
        __syncwarp();
        if (threadIdx.x % WARP == 0) arrive_barrier(empty(index));
    }

private:
    // Waits until every warp has released the pair that had the stage. The stage is full when the
    // copies of all threads have arrived.
    DEVICE_MEMBER void start(int index) const {
        if (index >= pairs) return;
        if (index >= STAGES) wait_barrier(empty(index), (index / STAGES + 1) & 1);
        copy(stage(index), index);
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full(index))
                     : "memory");
    }
    DEVICE_MEMBER u32 full(int index) const {
        return address + STAGES * Pair::BYTES + index % STAGES * BARRIER_BYTES;
    }
    DEVICE_MEMBER u32 empty(int index) const { return full(index) + 8; }
};

template <typename Pair, typename Copy>
DEVICE BarrierRing<Pair, Copy> barrier_ring(u32 address, int pairs, const Copy& copy) {
    return {address, pairs, copy};
}
