// The gate of full and sparse attention, which the two share, and the alignment loss between them,
// in one pass each way.
//
// full, sparse, mixed [tokens, heads, HEAD_DIM] bf16, gate [tokens, heads] f32. `mixed` is the
// gated output of the one that goes on. Apart from MSE, GATED says whether gated outputs are
// compared or the bare ones.
//
// Bytes an element: forward 6, backward 10, where separate kernels for gates, sums and loss would
// move 16 and more than 40. A block takes tokens blockIdx.x, blockIdx.x + gridDim.x, ...; the grid
// depends on the shape alone. Neighbouring lanes share a head (RowLayout), so that the sums over a
// head need no barrier.
#include "common.cuh"
#include "alignment.cuh"

using Layout = RowLayout<HEAD_DIM>;
constexpr int VEC = Layout::VEC;
constexpr int THREADS = 256;
constexpr int GROUPS = THREADS / Layout::LANES;

// `chosen` is 0 if the full output goes on, 1 for the sparse one.
extern "C" __global__ void __launch_bounds__(THREADS)
gated_pair_fwd(const bf16* full, const bf16* sparse, const float* gate, const u8* valid, i64 tokens, int heads, int chosen,
               bf16* mixed, double* partial) {
    const int lane = threadIdx.x % Layout::LANES, group = threadIdx.x / Layout::LANES;
    double sum = 0.0;
    for (i64 token = blockIdx.x; token < tokens; token += gridDim.x) {
        const bool counts = !valid || valid[token];
        for (int head = group; head < heads; head += GROUPS) {
            const i64 row = token * heads + head;
            const float g = gate[row];
#pragma unroll
            for (int i = 0; i < Layout::PER_LANE; ++i) {
                const int piece = lane + i * Layout::LANES;
                if (piece >= Layout::PIECES) break;
                const i64 at = row * HEAD_DIM + piece * VEC;
                float f[VEC], s[VEC], m[VEC], distances = 0.0f;
                load_vec<VEC>(f, full + at);
                load_vec<VEC>(s, sparse + at);
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    m[e] = g * (chosen ? s[e] : f[e]);
                    distances += distance(GATED ? g * (f[e] - s[e]) : f[e] - s[e]);
                }
                store_vec<VEC>(mixed + at, m);
                if (counts) sum += double(distances);
            }
        }
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// From the gradient of `mixed` and the alignment loss to those of both outputs and the gate.
// full_scale and sparse_scale are what the loss's slope at full - sparse is multiplied by, 0 for
// the one that is not pulled.
extern "C" __global__ void __launch_bounds__(THREADS)
gated_pair_bwd(const bf16* dmixed, const bf16* full, const bf16* sparse, const float* gate, const u8* valid, i64 tokens,
               int heads, int chosen, float full_scale, float sparse_scale, bf16* dfull, int add_full, bf16* dsparse,
               int add_sparse, float* dgate, int add_gate) {
    const int lane = threadIdx.x % Layout::LANES, group = threadIdx.x / Layout::LANES;
    for (i64 token = blockIdx.x; token < tokens; token += gridDim.x) {
        const bool counts = !valid || valid[token];
        // All lanes of a warp go through the loop equally often, since they add together.
        for (int first = 0; first < heads; first += GROUPS) {
            const int head = first + group;
            const bool inside = head < heads;
            const i64 row = token * heads + head;
            const float g = inside ? gate[row] : 0.0f;
            float gate_sum = 0.0f;
#pragma unroll
            for (int i = 0; i < Layout::PER_LANE; ++i) {
                const int piece = lane + i * Layout::LANES;
                if (!inside || piece >= Layout::PIECES) break;
                const i64 at = row * HEAD_DIM + piece * VEC;
                float d[VEC], f[VEC], s[VEC], df[VEC], ds[VEC];
                load_vec<VEC>(d, dmixed + at);
                load_vec<VEC>(f, full + at);
                load_vec<VEC>(s, sparse + at);
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    const float difference = f[e] - s[e], through = d[e] * g;
                    const float pull = counts ? slope(GATED ? g * difference : difference) : 0.0f;
                    const float full_term = full_scale * pull, sparse_term = sparse_scale * pull;
                    gate_sum = fmaf(d[e], chosen ? s[e] : f[e], gate_sum);
                    if (GATED) gate_sum += full_term * f[e] + sparse_term * s[e];
                    const float to_bare = GATED ? g : 1.0f;
                    df[e] = fmaf(full_term, to_bare, chosen ? 0.0f : through);
                    ds[e] = fmaf(sparse_term, to_bare, chosen ? through : 0.0f);
                }
                accumulate_vec<VEC>(dfull + at, df, add_full);
                accumulate_vec<VEC>(dsparse + at, ds, add_sparse);
            }
            gate_sum = lanes_sum<Layout::LANES>(gate_sum);
            if (inside && lane == 0) accumulate(dgate + row, gate_sum, add_gate);
        }
    }
}
