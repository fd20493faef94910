// What the attention kernels for sm_90a share beyond attention.cuh.
#pragma once
#include "attention.cuh"
#include "wgmma.cuh"

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "tiles are whole slabs of 64 columns");

// As copy_tile, into slabs.
template <int ROWS, int THREADS, typename Rows>
DEVICE void copy_slabs(u32 tile, const bf16* source, const Rows& rows, int from, int end) {
    copy_rows<ROWS, THREADS>(
        source, rows, from, end, [&](int row, int chunk) { return tile + slab_swizzle<ROWS>(row, chunk); });
}

// The fragments of 16 rows of a tile of ROWS rows, from `row` on, 16 columns each.
template <int ROWS, int N> DEVICE void load_slab_rows(u32 (&a)[N][4], u32 tile, int row, int lane) {
#pragma unroll
    for (int d = 0; d < N; ++d)
        load_a(a[d], tile + slab_swizzle<ROWS>(row + lane % 16, 2 * d + lane / 16));
}

// Describes the 64 rows of a tile that are this warpgroup's.
DEVICE u64 warpgroup_rows(u32 tile) { return slab_descriptor(tile + threadIdx.x / 128 * (64 * 128), 0); }

// d = A B^T over the whole depth, with A a warpgroup's rows of a tile of A_ROWS and B a tile of
// B_ROWS.
template <int A_ROWS, int B_ROWS> DEVICE void depth_product(float (&d)[B_ROWS / 8][4], u64 a, u64 b) {
#pragma unroll
    for (int step = 0; step < DEPTH_STEPS; ++step)
        wgmma<B_ROWS>(d, depth_step<A_ROWS>(a, step), depth_step<B_ROWS>(b, step), step > 0);
}

// The same with A in registers.
template <int B_ROWS> DEVICE void depth_product(float (&d)[B_ROWS / 8][4], const u32 (&a)[DEPTH_STEPS][4], u64 b) {
#pragma unroll
    for (int step = 0; step < DEPTH_STEPS; ++step) wgmma_rows<B_ROWS>(d, a[step], depth_step<B_ROWS>(b, step), step > 0);
}

// d += A B over 16 N rows of B, with A in registers.
template <int N> DEVICE void row_product(float (&d)[DEPTH_COLUMNS][4], const u32 (&a)[N][4], u64 b) {
#pragma unroll
    for (int n = 0; n < N; ++n) wgmma_rows_columns<HEAD_DIM>(d, a[n], row_step(b, n));
}

// A whole accumulator, rounded, as the `a` of row_product.
template <int N> DEVICE void pack_operands(u32 (&a)[N][4], const float (&x)[2 * N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) pack_operand(a[n], x[2 * n], x[2 * n + 1]);
}

// A ring of PLACES tiles in shared memory that all threads fill and all warps read. Warps wait for
// tiles, not for each other, so that one warpgroup takes exponentials while another keeps the
// tensor cores busy: a barrier of the block for every tile would bring them into step. Two 64-bit
// barriers a stage lie at `barriers`.
template <int PLACES, int BLOCK_THREADS> struct Ring {
    u32 barriers;

    // Before the first use; ends with a barrier of the block.
    DEVICE_MEMBER void init() const {
        if (threadIdx.x == 0) {
#pragma unroll
            for (int stage = 0; stage < PLACES; ++stage) {
                init_barrier(full(stage), BLOCK_THREADS);
                init_barrier(empty(stage), BLOCK_THREADS / WARP);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
    }
    // Before tile `index` is written: everybody has released the tile that had its place.
    DEVICE_MEMBER void wait_empty(int index) const {
        if (index >= PLACES) wait(empty(index % PLACES), (index / PLACES + 1) & 1);
    }
    // After this thread's copies of tile `index` were started: the tile is full when those of all
    // threads have arrived.
    DEVICE_MEMBER void started(int index) const {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full(index % PLACES)) : "memory");
    }
    // Until tile `index` has arrived and products may read it.
    DEVICE_MEMBER void wait_full(int index) const {
        wait(full(index % PLACES), index / PLACES & 1);
        fence_async_proxy();
    }
    // This warp reads tile `index` no more.
    DEVICE_MEMBER void release(int index) const {
        __syncwarp();
        if (threadIdx.x % WARP == 0)
            asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(empty(index % PLACES)) : "memory");
    }

private:
    DEVICE_MEMBER u32 full(int stage) const { return barriers + stage * 16; }
    DEVICE_MEMBER u32 empty(int stage) const { return barriers + stage * 16 + 8; }
    DEVICE_MEMBER static void init_barrier(u32 barrier, u32 count) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
    }
    DEVICE_MEMBER static void wait(u32 barrier, u32 parity) {
        asm volatile("{.reg .pred done;"
                     "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;"
                     "@!done bra again;}" ::"r"(barrier), "r"(parity) : "memory");
    }
};
