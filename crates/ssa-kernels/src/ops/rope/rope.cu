// Rotary position embedding in place: x [tokens, heads, HEAD_DIM] bf16, table [2, positions,
// HEAD_DIM / 2] f32 (cosines, then sines). The position of a token is its distance from the origin
// of its sequence. Given as macros: HEAD_DIM; ROW_VEC, elements of a vector of half a head.
//
// A thread rotates VEC pairs of one head: two loads of 16 bytes of the head and four of the table,
// which the L1 and L2 caches hold. Bytes an element: 4. Rotating the same pairs of several heads by
// one reading of the table was slower on an H100, for want of threads (32 heads of 64): 2, 4 and 8
// heads per thread took 4, 9 and 15 % longer than one.
#include "common.cuh"
#include "params.cuh"

constexpr int HALF = HEAD_DIM / 2;
constexpr int VEC = ROW_VEC;
constexpr int PIECES = HALF / VEC;

// `sign` is 1 forward and -1 backward. A block takes `tokens_per_block` tokens.
extern "C" __global__ void __launch_bounds__(THREADS)
rope(const Rope p) {
    const int work = p.heads * PIECES;
    const i64 base = i64(blockIdx.x) * p.tokens_per_block;
    for (int item = threadIdx.x; item < p.tokens_per_block * work; item += THREADS) {
        const i64 token = base + item / work;
        if (token >= p.tokens) return;
        const int head = item % work / PIECES, piece = item % PIECES;
        bf16* at = p.x + (token * p.heads + head) * HEAD_DIM + piece * VEC;
        const i64 angle = (token - p.origin[token]) * HALF + piece * VEC;
        float a[VEC], b[VEC], cosine[VEC], sine[VEC];
        load_vec<VEC>(a, at);
        load_vec<VEC>(b, at + HALF);
        load_vec<VEC>(cosine, p.table + angle);
        load_vec<VEC>(sine, p.table + p.positions * HALF + angle);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            const float first = a[e], second = b[e], s = p.sign * sine[e];
            a[e] = first * cosine[e] - second * s;
            b[e] = second * cosine[e] + first * s;
        }
        store_vec<VEC>(at, a);
        store_vec<VEC>(at + HALF, b);
    }
}
