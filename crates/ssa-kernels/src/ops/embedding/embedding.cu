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
// A block takes 8 columns a thread (1 where rows are no multiple of 8), all columns within
// blockIdx.y. Bytes: forward 4 an element; backward 2 an element of dout and 8 an element of each
// row of the gradient that occurs.
#include "common.cuh"

constexpr int VEC = HIDDEN % 8 == 0 ? 8 : 1;
constexpr int PIECES = HIDDEN / VEC;

// A warp copies a row.
extern "C" __global__ void __launch_bounds__(256) embedding_fwd(const u32* ids, const bf16* weight, bf16* out, i64 tokens) {
    const int lane = threadIdx.x % WARP;
    const i64 token = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (token >= tokens) return;
    const bf16* from = weight + i64(ids[token]) * HIDDEN;
    bf16* to = out + token * HIDDEN;
#pragma unroll 8
    for (int piece = lane; piece < PIECES; piece += WARP) {
        if constexpr (VEC == 8) reinterpret_cast<uint4*>(to)[piece] = reinterpret_cast<const uint4*>(from)[piece];
        else to[piece] = from[piece];
    }
}

// Tokens begin..end of the sorted list have the same id. `slot` is the partial row to write, or -1
// to add to dweight.
struct Run {
    int id, begin, end, slot;
};

extern "C" __global__ void __launch_bounds__(256, 4)
embedding_bwd(const bf16* dout, const int* sorted_tokens, const Run* runs, float* partial, float* dweight) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    if (column >= HIDDEN) return;
    const Run run = runs[blockIdx.x];
    float sum[VEC] = {};
    // The loads of a turn are issued before its first addition.
    constexpr int UNROLL = 8;
    int i = run.begin;
    for (; i + UNROLL <= run.end; i += UNROLL) {
        float x[UNROLL][VEC];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) load_vec<VEC>(x[u], dout + i64(sorted_tokens[i + u]) * HIDDEN + column);
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int e = 0; e < VEC; ++e) sum[e] += x[u][e];
    }
    for (; i < run.end; ++i) {
        float x[VEC];
        load_vec<VEC>(x, dout + i64(sorted_tokens[i]) * HIDDEN + column);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum[e] += x[e];
    }
    if (run.slot < 0) accumulate_vec<VEC>(dweight + i64(run.id) * HIDDEN + column, sum, 1);
    else store_vec<VEC>(partial + i64(run.slot) * HIDDEN + column, sum);
}

// The partial rows begin..end belong to one id.
extern "C" __global__ void __launch_bounds__(256)
embedding_bwd_combine(const float* partial, const Run* groups, float* dweight) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    if (column >= HIDDEN) return;
    const Run group = groups[blockIdx.x];
    float sum[VEC] = {};
#pragma unroll 8
    for (int slot = group.begin; slot < group.end; ++slot) {
        float x[VEC];
        load_vec<VEC>(x, partial + i64(slot) * HIDDEN + column);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum[e] += x[e];
    }
    accumulate_vec<VEC>(dweight + i64(group.id) * HIDDEN + column, sum, 1);
}
