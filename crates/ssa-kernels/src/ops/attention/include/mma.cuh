// Tensor core products and the moves that feed them: bf16 operands, f32 accumulators, sm_80 and
// newer.
#pragma once
#include "common.cuh"

// Fragments of mma.m16n8k16 as lanes hold them, with g = lane / 4 and c = lane % 4:
//
//   a[0]         row g, columns 2c and 2c + 1
//   a[1]         row g + 8, the same columns
//   a[2], a[3]   the same rows, columns + 8
//   b[0]         rows 2c and 2c + 1 of column g
//   b[1]         rows + 8
//   d[0], d[1]   row g, columns 2c and 2c + 1
//   d[2], d[3]   row g + 8
//
// So two neighboring accumulator tiles of 8 columns are, rounded and packed, the `a` of a next
// product.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two neighboring accumulator tiles, rounded, as the `a` of a next product.
DEVICE void pack_operand(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
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

// An address in shared memory, as PTX instructions take it.
DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// Four 8x8 matrices; lane l gives the address of row l % 8 of matrix l / 8, 16 bytes of shared
// memory.
DEVICE void ldmatrix4(u32& r0, u32& r1, u32& r2, u32& r3, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(address) : "memory");
}

// As ldmatrix4, each matrix transposed.
DEVICE void ldmatrix4_trans(u32& r0, u32& r1, u32& r2, u32& r3, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(address) : "memory");
}

// Copies 16 bytes from device to shared memory, bypassing registers and L1. If `valid` is false,
// nothing is read and zeros are written.
DEVICE void copy_async16(u32 to_shared, const void* from, bool valid = true) {
    const u32 bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from),
                 "r"(bytes)
                 : "memory");
}

// The same for eight bytes, through L1.
DEVICE void copy_async8(u32 to_shared, const void* from, bool valid) {
    const u32 bytes = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to_shared), "l"(from),
                 "r"(bytes)
                 : "memory");
}

DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of the latest groups are in flight.
template <int PENDING> DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Waits until all copies that this thread started have arrived, whether they are in a group or not.
DEVICE void copy_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Byte offset of the 16-byte chunk `chunk` of row `row` in a tile whose rows have BYTES bytes.
// Chunks are swapped within a row by XOR with the row number, so that the eight rows of
// an ldmatrix are in different banks.
template <int BYTES> DEVICE u32 swizzle(int row, int chunk) {
    constexpr int CHUNKS = BYTES / 16;
    static_assert(CHUNKS >= 2 && (CHUNKS & (CHUNKS - 1)) == 0, "a row is a power of two of chunks");
    // Rows shorter than 128 bytes share a line of banks: their chunks are swapped differently only
    // every 8 / CHUNKS rows.
    constexpr int MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
    constexpr int ROWS_PER_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1;
    return u32(row * BYTES + ((chunk ^ ((row / ROWS_PER_LINE) & MASK)) * 16));
}
