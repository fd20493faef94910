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
