// The gate that full and sparse attention share, and the alignment loss between the two: one pass
// forward and one backward.
//
// full, sparse, mixed [tokens, heads, HEAD_DIM] bf16, gate [tokens, heads] f32. `mixed` is the
// gated output of the attention that feeds the next layer. Given as macros, in addition to HEAD_DIM
// and its layout: MSE (the distance) and GATED (whether the outputs are compared after the gate or
// before it).
//
// Bytes per element: forward 6, backward 10. Separate kernels for gates, sums and loss would move
// 16 and more than 40. A block takes tokens blockIdx.x, blockIdx.x + gridDim.x, ...; the grid
// depends on the shape alone. Neighboring lanes share a head (RowLayout), so that the sums over a
// head need no barrier.
#include "common.cuh"
#include "params.cuh"

using Layout = RowLayout<HEAD_DIM, ROW_VEC, ROW_LANES>;
constexpr int VEC = Layout::VEC;
constexpr int GROUPS = THREADS / Layout::LANES;
// Per multiprocessor: 40 registers per thread keep enough loads in flight.
constexpr int BLOCKS_AT_ONCE = 6;

// The distance of the alignment loss: squares if MSE, else smooth L1.
DEVICE float distance(float d) {
#if MSE
    return d * d;
#else
    // d^2 / 2 for |d| < 1, else |d| - 1/2, without a branch.
    const float size = fabsf(d), clamped = fminf(size, 1.0f);
    return clamped * (size - 0.5f * clamped);
#endif
}

// Its derivative.
DEVICE float slope(float d) {
#if MSE
    return 2.0f * d;
#else
    return d > 1.0f ? 1.0f : d < -1.0f ? -1.0f : d;
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
gated_pair_fwd(const GatedPairFwd p) {
    double sum = 0.0;
    for (i64 token = blockIdx.x; token < p.tokens; token += gridDim.x) {
        const bool counts = !p.valid || p.valid[token];
        for (int head = threadIdx.x / Layout::LANES; head < p.heads; head += GROUPS) {
            const i64 row = token * p.heads + head;
            const float g = p.gate[row];
            Layout::for_each_vector(row, true, [&](i64 at) {
                float f[VEC], s[VEC], m[VEC], distances = 0.0f;
                load_vec<VEC>(f, p.full + at);
                load_vec<VEC>(s, p.sparse + at);
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    m[e] = g * (p.takes_sparse ? s[e] : f[e]);
                    distances += distance(GATED ? g * (f[e] - s[e]) : f[e] - s[e]);
                }
                store_vec<VEC>(p.mixed + at, m);
                if (counts) sum += double(distances);
            });
        }
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) p.partial[blockIdx.x] = sum;
}

// From the gradient of `mixed` and the alignment loss to those of both outputs and the gate.
// full_scale and sparse_scale are the factors of the loss's slope at full - sparse, 0 for an output
// that the loss does not pull.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
gated_pair_bwd(const GatedPairBwd p) {
    for (i64 token = blockIdx.x; token < p.tokens; token += gridDim.x) {
        const bool counts = !p.valid || p.valid[token];
        // All lanes of a warp take the same number of iterations, since they reduce together.
        for (int first = 0; first < p.heads; first += GROUPS) {
            const int head = first + threadIdx.x / Layout::LANES;
            const bool inside = head < p.heads;
            const i64 row = token * p.heads + head;
            const float g = inside ? p.gate[row] : 0.0f;
            float gate_sum = 0.0f;
            Layout::for_each_vector(row, inside, [&](i64 at) {
                float d[VEC], f[VEC], s[VEC], df[VEC], ds[VEC];
                load_vec<VEC>(d, p.dmixed + at);
                load_vec<VEC>(f, p.full + at);
                load_vec<VEC>(s, p.sparse + at);
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    const float difference = f[e] - s[e], through = d[e] * g;
                    const float pull = counts ? slope(GATED ? g * difference : difference) : 0.0f;
                    const float full_term = p.full_scale * pull;
                    const float sparse_term = p.sparse_scale * pull;
                    gate_sum = fmaf(d[e], p.takes_sparse ? s[e] : f[e], gate_sum);
                    if (GATED) gate_sum += full_term * f[e] + sparse_term * s[e];
                    const float to_bare = GATED ? g : 1.0f;
                    df[e] = fmaf(full_term, to_bare, p.takes_sparse ? 0.0f : through);
                    ds[e] = fmaf(sparse_term, to_bare, p.takes_sparse ? through : 0.0f);
                }
                accumulate_vec<VEC>(p.dfull, at, df);
                accumulate_vec<VEC>(p.dsparse, at, ds);
            });
            gate_sum = lanes_sum<Layout::LANES>(gate_sum);
            if (inside && threadIdx.x % Layout::LANES == 0) accumulate(p.dgate, row, gate_sum);
        }
    }
}
