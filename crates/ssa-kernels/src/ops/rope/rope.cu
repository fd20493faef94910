// Rotary position embedding in place: x [tokens, heads, HEAD_DIM] bf16, table [2, positions, HEAD_DIM / 2] f32 (cosines,
// then sines). The position of a token is its distance from the first token of its document.
//
// A thread rotates the same VEC pairs of up to HEADS heads of a token: 2 HEADS loads of 16 bytes in flight, and the table,
// which costs twice the bytes of a head, is read once for all of them. Bytes an element: 4.
#include "common.cuh"

constexpr int HALF = HEAD_DIM / 2;
constexpr int VEC = HALF % 8 == 0 ? 8 : 1;
constexpr int PIECES = HALF / VEC;
constexpr int HEADS = 4;
constexpr int THREADS = 256;

// `sign` is 1 forward and -1 backward. A block takes `tokens_per_block` tokens.
extern "C" __global__ void __launch_bounds__(THREADS)
rope(bf16* x, const float* table, const int* document_start, i64 tokens, int heads, i64 positions, int tokens_per_block,
     float sign) {
    const int groups = ceil_div(heads, HEADS), work = groups * PIECES;
    const i64 base = i64(blockIdx.x) * tokens_per_block;
    for (int item = threadIdx.x; item < tokens_per_block * work; item += THREADS) {
        const i64 token = base + item / work;
        if (token >= tokens) return;
        const int piece = item % PIECES, first_head = item % work / PIECES * HEADS;
        const i64 position = token - document_start[token];
        bf16* at = x + (token * heads + first_head) * HEAD_DIM + piece * VEC;
        float a[HEADS][VEC], b[HEADS][VEC], cosine[VEC], sine[VEC];
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
            if (first_head + h < heads) {
                load_vec<VEC>(a[h], at + h * HEAD_DIM);
                load_vec<VEC>(b[h], at + h * HEAD_DIM + HALF);
            }
        load_vec<VEC>(cosine, table + position * HALF + piece * VEC);
        load_vec<VEC>(sine, table + (positions + position) * HALF + piece * VEC);
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
            if (first_head + h < heads) {
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    const float first = a[h][e], second = b[h][e], s = sign * sine[e];
                    a[h][e] = first * cosine[e] - second * s;
                    b[h][e] = second * cosine[e] + first * s;
                }
                store_vec<VEC>(at + h * HEAD_DIM, a[h]);
                store_vec<VEC>(at + h * HEAD_DIM + HALF, b[h]);
            }
    }
}
