// The alignment loss between two attention outputs [tokens, WIDTH] bf16, and its gradient.
//
// A block takes tokens blockIdx.x, blockIdx.x + gridDim.x, ...; the grid depends on the shape
// alone. Distances are f32, a thread's sums f64, one partial sum a block; another kernel adds those
// in order. Bytes an element: forward 4, backward 8 into gradients that hold nothing yet.
#include "common.cuh"
#include "alignment.cuh"

constexpr int VEC = WIDTH % 8 == 0 ? 8 : 1;
constexpr int PIECES = WIDTH / VEC;
constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
alignment_fwd(const bf16* full, const bf16* sparse, const u8* valid, i64 tokens, double* partial) {
    double sum = 0.0;
    for (i64 token = blockIdx.x; token < tokens; token += gridDim.x) {
        if (valid && !valid[token]) continue;
        for (int piece = threadIdx.x; piece < PIECES; piece += THREADS) {
            const i64 at = token * WIDTH + piece * VEC;
            float a[VEC], b[VEC], distances = 0.0f;
            load_vec<VEC>(a, full + at);
            load_vec<VEC>(b, sparse + at);
#pragma unroll
            for (int e = 0; e < VEC; ++e) distances += distance(a[e] - b[e]);
            sum += double(distances);
        }
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// A gradient that is not pulled is a null pointer. Nothing is added where a token is not valid.
extern "C" __global__ void __launch_bounds__(THREADS)
alignment_bwd(const bf16* full, const bf16* sparse, const u8* valid, i64 tokens, float scale, bf16* dfull, int add_full,
              bf16* dsparse, int add_sparse) {
    for (i64 token = blockIdx.x; token < tokens; token += gridDim.x) {
        const bool counts = !valid || valid[token];
        for (int piece = threadIdx.x; piece < PIECES; piece += THREADS) {
            const i64 at = token * WIDTH + piece * VEC;
            float a[VEC] = {}, b[VEC] = {};
            if (counts) {
                load_vec<VEC>(a, full + at);
                load_vec<VEC>(b, sparse + at);
            }
#pragma unroll
            for (int e = 0; e < VEC; ++e) {
                a[e] = scale * slope(a[e] - b[e]);
                b[e] = -a[e];
            }
            if (dfull) accumulate_vec<VEC>(dfull + at, a, add_full);
            if (dsparse) accumulate_vec<VEC>(dsparse + at, b, add_sparse);
        }
    }
}
