// What the attention kernels for sm_90a share beyond attention.cuh.
#pragma once
#include "attention.cuh"
#include "wgmma.cuh"

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "tiles are whole slabs of 64 columns");

// As copy_tile, into slabs.
template <int ROWS, int THREADS, typename Rows>
DEVICE void copy_slabs(u32 tile, const bf16* source, const Rows& rows, int from, int end) {
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; ++i) {
        const int index = i * THREADS + threadIdx.x;
        const int row = index / CHUNKS, chunk = index % CHUNKS;
        if ((ROWS * CHUNKS) % THREADS != 0 && row >= ROWS) break;
        copy_async16(
            tile + slab_swizzle<ROWS>(row, chunk), source + rows(from + row) * HEAD_DIM + chunk * 8, from + row < end);
    }
}

// The fragments of 16 rows of a tile of ROWS rows, from `row` on, 16 columns each.
template <int ROWS, int N> DEVICE void load_slab_rows(u32 (&a)[N][4], u32 tile, int row, int lane) {
#pragma unroll
    for (int d = 0; d < N; ++d)
        load_a(a[d], tile + slab_swizzle<ROWS>(row + lane % 16, 2 * d + lane / 16));
}

// scores = rows times B^T over the whole depth: the rows of a warpgroup either as fragments or as a tile of A_ROWS rows.
template <int N, int A_ROWS, int B_ROWS, bool IN_REGISTERS>
DEVICE void depth_product(
    float (&scores)[N / 8][4], const u32 (&fragments)[IN_REGISTERS ? HEAD_DIM / 16 : 1][4], u64 a, u64 b
) {
#pragma unroll
    for (int d = 0; d < HEAD_DIM / 16; ++d) {
        if constexpr (IN_REGISTERS) {
            wgmma_rows<N>(scores, fragments[d], depth_step<B_ROWS>(b, d), d > 0);
        } else {
            wgmma<N>(scores, depth_step<A_ROWS>(a, d), depth_step<B_ROWS>(b, d), d > 0);
        }
    }
}

// A ring of PLACES tiles in shared memory that all threads fill and all warps read. Warps wait for tiles, not for each
// other, so that one warpgroup takes exponentials while another keeps the tensor cores busy: a barrier of the block for every
// tile would bring them into step. Two 64-bit barriers a stage lie at `barriers`.
template <int PLACES, int BLOCK_THREADS> struct Ring {
    u32 barriers;

    // Before the first use; ends with a barrier of the block.
    __device__ __forceinline__ void init() const {
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
    __device__ __forceinline__ void wait_empty(int index) const {
        if (index >= PLACES) wait(empty(index % PLACES), (index / PLACES + 1) & 1);
    }
    // After this thread's copies of tile `index` were started: the tile is full when those of all threads have arrived.
    __device__ __forceinline__ void started(int index) const {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full(index % PLACES)) : "memory");
    }
    // Until tile `index` has arrived and products may read it.
    __device__ __forceinline__ void wait_full(int index) const {
        wait(full(index % PLACES), index / PLACES & 1);
        fence_async_proxy();
    }
    // This warp reads tile `index` no more.
    __device__ __forceinline__ void release(int index) const {
        __syncwarp();
        if (threadIdx.x % WARP == 0)
            asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(empty(index % PLACES)) : "memory");
    }

private:
    __device__ __forceinline__ u32 full(int stage) const { return barriers + stage * 16; }
    __device__ __forceinline__ u32 empty(int stage) const { return barriers + stage * 16 + 8; }
    __device__ __forceinline__ static void init_barrier(u32 barrier, u32 count) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
    }
    __device__ __forceinline__ static void wait(u32 barrier, u32 parity) {
        asm volatile("{.reg .pred done;"
                     "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;"
                     "@!done bra again;}" ::"r"(barrier), "r"(parity) : "memory");
    }
};
