// Rows of the embedding matrix, and the gradient of that matrix without atomics.
//
// The host sorts the tokens by id and cuts the list of every id into pieces of a fixed number of
// tokens. embedding_bwd sums a piece in token order in f32: the only piece of an id adds to the
// gradient, each of several pieces writes a partial row that embedding_bwd_combine adds in order.
// So a frequent id keeps many blocks busy and the order follows from the ids.
//
// A piece has 128 tokens: with 64 the partial rows of frequent ids cost more than the shorter
// pieces save (16384 tokens of a Zipf law on an H100: 67 instead of 74 us; all tokens of one id: 46
// instead of 59 us).
//
// A thread takes ROW_VEC columns (a macro, like HIDDEN); blockIdx.y selects the columns of a block.
// Bytes: forward 4 per element; backward 2 per element of dout, and 8 per element of each row of
// the gradient that occurs.
#include "common.cuh"
#include "params.cuh"

constexpr int VEC = ROW_VEC;
constexpr int PIECES = HIDDEN / VEC;

// Each warp copies a row.
extern "C" __global__ void __launch_bounds__(THREADS)
embedding_fwd(const EmbeddingFwd p) {
    const int lane = threadIdx.x % WARP;
    const i64 token = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (token >= p.tokens) return;
    const bf16* from = p.weight + i64(p.ids[token]) * HIDDEN;
    bf16* to = p.out + token * HIDDEN;
#pragma unroll 8
    for (int piece = lane; piece < PIECES; piece += WARP) {
        if constexpr (VEC == 8) {
            reinterpret_cast<uint4*>(to)[piece] = reinterpret_cast<const uint4*>(from)[piece];
        } else {
            to[piece] = from[piece];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
embedding_bwd(const EmbeddingBwd p) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    if (column >= HIDDEN) return;
    const Run run = p.runs[blockIdx.x];
    float sum[VEC] = {};
    // The loads of an iteration are issued before its first addition.
    constexpr int UNROLL = 8;
    int i = run.begin;
    for (; i + UNROLL <= run.end; i += UNROLL) {
        float x[UNROLL][VEC];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            load_vec<VEC>(x[u], p.dout + i64(p.sorted_tokens[i + u]) * HIDDEN + column);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int e = 0; e < VEC; ++e) sum[e] += x[u][e];
    }
    for (; i < run.end; ++i) {
        float x[VEC];
        load_vec<VEC>(x, p.dout + i64(p.sorted_tokens[i]) * HIDDEN + column);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum[e] += x[e];
    }
    if (run.slot < 0) accumulate_vec<VEC>(p.dweight + i64(run.id) * HIDDEN + column, sum, 1);
    else store_vec<VEC>(p.partial + i64(run.slot) * HIDDEN + column, sum);
}

// Each group is the partial rows of one id.
extern "C" __global__ void __launch_bounds__(THREADS)
embedding_bwd_combine(const EmbeddingBwdCombine p) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    if (column >= HIDDEN) return;
    const Run group = p.groups[blockIdx.x];
    float sum[VEC] = {};
#pragma unroll 8
    for (int slot = group.begin; slot < group.end; ++slot) {
        float x[VEC];
        load_vec<VEC>(x, p.partial + i64(slot) * HIDDEN + column);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum[e] += x[e];
    }
    accumulate_vec<VEC>(p.dweight + i64(group.id) * HIDDEN + column, sum, 1);
}
