// Tensor core products of warpgroups (sm_90a): the second operand, and where it is not in registers
// the first, are read from shared memory, so that fragments cost neither registers nor loads. A
// source that includes this compiles for sm_90a alone.
#pragma once
#include "mma.cuh"

constexpr int WARPGROUP = 4 * WARP;
// Rows of a product of a warpgroup.
constexpr int WARPGROUP_ROWS = 64;

// The number of this thread's warpgroup.
DEVICE int warpgroup() { return threadIdx.x / WARPGROUP; }
// Barrier of this warpgroup, one of the 16 that a block has by number; 0 is __syncthreads().
DEVICE void sync_warpgroup() {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + warpgroup()), "n"(WARPGROUP) : "memory");
}

// The same; returns whether `x` holds for any thread.
DEVICE bool sync_warpgroup_or(bool x) {
    int any;
    asm volatile("{.reg .pred p, q; setp.ne.b32 p, %1, 0;"
                 "bar.red.or.pred q, %2, %3, p; selp.b32 %0, 1, 0, q;}"
                 : "=r"(any) : "r"(int(x)), "r"(1 + warpgroup()), "n"(WARPGROUP) : "memory");
    return any;
}

// Operands consist of swizzle atoms: 8 rows of 128 bytes (64 columns) whose chunks are swapped as
// `swizzle<128>` does, which is the 128-byte mode of the hardware where an atom is aligned to its
// size.
constexpr int ATOM_ROW_BYTES = 128;
constexpr int ATOM_BYTES = 8 * ATOM_ROW_BYTES;

// Byte offset of the 8 columns `chunk` of a row in an operand of ROWS rows: 64 columns of all rows,
// then the next 64.
template <int ROWS> DEVICE u32 operand_offset(int row, int chunk) {
    constexpr int ATOM_CHUNKS = ATOM_ROW_BYTES / 16;
    return u32(chunk / ATOM_CHUNKS * (ROWS * ATOM_ROW_BYTES)) +
           swizzle<ATOM_ROW_BYTES>(row, chunk % ATOM_CHUNKS);
}

// Describes 64 columns of atoms, one after the other along the rows: `address` of the first one,
// `column_bytes` from there to the next 64 columns (used where columns are not the depth of the
// product and exceed 64).
DEVICE u64 atom_descriptor(u32 address, u32 column_bytes) {
    return u64((address & 0x3ffff) >> 4) | u64(column_bytes >> 4) << 16 |
           u64(ATOM_BYTES >> 4) << 32 | u64(1) << 62;
}

// An operand of ROWS rows whose columns are the depth of the product.
template <int ROWS> struct DepthOperand {
    u64 descriptor;

    // Steps of 16 columns: 32 bytes within the atoms, then the next column of atoms.
    DEVICE_MEMBER u64 step(int step) const {
        return descriptor + ((step % 4 * 32 + step / 4 * (ROWS * ATOM_ROW_BYTES)) >> 4);
    }
};

// A second operand whose rows are the depth of the product.
struct RowOperand {
    u64 descriptor;

    // Steps of 16 rows, two atoms.
    DEVICE_MEMBER u64 step(int step) const { return descriptor + (step * (2 * ATOM_BYTES) >> 4); }
};

// Order of use: fence (registers written before against products issued after), products, commit,
// wait.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Makes shared memory written by ordinary instructions and cp.async visible to the products of this
// thread's warpgroup.
DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Keeps the compiler from moving registers that products still write across a wait.
template <int N> DEVICE void fence_registers(float (&d)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(d[n][i])::"memory");
}

// An accumulator as operands of an asm statement: their names in its text, and the registers.
#define WGMMA_NAMES_32                                                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_NAMES_64                                                                  \
    WGMMA_NAMES_32                                                                      \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_D4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define WGMMA_D16(n) WGMMA_D4(n), WGMMA_D4(n + 1), WGMMA_D4(n + 2), WGMMA_D4(n + 3)

// d (+)= A B^T, 16 deep: 64 rows of A against N rows of B, both with the depth along their columns.
// Lanes hold d as `mma` does, warp w of the warpgroup the rows from 16 w on.
template <int N> DEVICE void wgmma(float (&d)[N / 8][4], u64 a, u64 b, int accumulate) {
    static_assert(N == 64 || N == 128, "");
    if constexpr (N == 64) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_32
                     "}, %32, %33, p, 1, 1, 0, 0;}"
                     : WGMMA_D16(0), WGMMA_D16(4)
                     : "l"(a), "l"(b), "r"(accumulate));
    } else {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_NAMES_64
                     "}, %64, %65, p, 1, 1, 0, 0;}"
                     : WGMMA_D16(0), WGMMA_D16(4), WGMMA_D16(8), WGMMA_D16(12)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
}

// The same with A in registers, as for `mma`.
template <int N>
DEVICE void wgmma_rows(float (&d)[N / 8][4], const u32 (&a)[4], u64 b, int accumulate) {
    static_assert(N == 64 || N == 128, "");
    if constexpr (N == 64) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_32
                     "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;}"
                     : WGMMA_D16(0), WGMMA_D16(4)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
    } else {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_NAMES_64
                     "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;}"
                     : WGMMA_D16(0), WGMMA_D16(4), WGMMA_D16(8), WGMMA_D16(12)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
    }
}

// d += A B, 16 deep: A in registers, as for `mma`, B 16 rows of N columns.
template <int N>
DEVICE void wgmma_rows_columns(float (&d)[N / 8][4], const u32 (&a)[4], u64 b) {
    static_assert(N == 64 || N == 128, "");
    if constexpr (N == 64) {
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_32
                     "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                     : WGMMA_D16(0), WGMMA_D16(4)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    } else {
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_NAMES_64
                     "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                     : WGMMA_D16(0), WGMMA_D16(4), WGMMA_D16(8), WGMMA_D16(12)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    }
}
