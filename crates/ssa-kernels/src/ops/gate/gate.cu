// The sigmoid of the projected gates, and the product of attention outputs with their gates. The
// projections themselves are matrix products.
//
// gate_apply: rows are the heads of all tokens, HEAD_DIM elements of bf16 with one f32 gate each.
// RowLayout divides a row among neighbouring lanes, so that dgate is a sum over a few lanes. Bytes
// an element: forward 4, backward 6.
#include "common.cuh"

struct Sigmoid {
    float* x;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float values[VEC];
        load_vec<VEC>(values, x + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) values[e] = sigmoid(values[e]);
        store_vec<VEC>(x + at, values);
    }
};

extern "C" __global__ void __launch_bounds__(256) gate_sigmoid(float* x, i64 len) { for_each_piece(len, Sigmoid{x}); }

struct SigmoidBackward {
    const float *dgate, *gate;
    bf16* ds;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float d[VEC], g[VEC];
        load_vec<VEC>(d, dgate + at);
        load_vec<VEC>(g, gate + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) d[e] *= g[e] * (1.0f - g[e]);
        store_vec<VEC>(ds + at, d);
    }
};

// ds = dgate gate (1 - gate), rounded for the matrix products that follow.
extern "C" __global__ void __launch_bounds__(256)
gate_sigmoid_bwd(const float* dgate, const float* gate, bf16* ds, i64 len) {
    for_each_piece(len, SigmoidBackward{dgate, gate, ds});
}

#ifdef HEAD_DIM
using Layout = RowLayout<HEAD_DIM>;
constexpr int VEC = Layout::VEC;
constexpr int THREADS = 256;
constexpr int ROWS = THREADS / Layout::LANES;

// Launched with a group of lanes for every row, in whole blocks.
extern "C" __global__ void __launch_bounds__(THREADS)
gate_apply_fwd(const bf16* out, const float* gate, bf16* gated, i64 rows) {
    const int lane = threadIdx.x % Layout::LANES;
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / Layout::LANES;
    if (row >= rows) return;
    const float g = gate[row];
#pragma unroll
    for (int i = 0; i < Layout::PER_LANE; ++i) {
        const int piece = lane + i * Layout::LANES;
        if (piece >= Layout::PIECES) break;
        const i64 at = row * HEAD_DIM + piece * VEC;
        float x[VEC];
        load_vec<VEC>(x, out + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) x[e] *= g;
        store_vec<VEC>(gated + at, x);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gate_apply_bwd(const bf16* dgated, const bf16* out, const float* gate, bf16* dout, int add_dout, float* dgate, int add_dgate,
               i64 rows) {
    const int lane = threadIdx.x % Layout::LANES;
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / Layout::LANES;
    // Lanes without a row stay, since the lanes of a warp add together.
    const bool inside = row < rows;
    const float g = inside ? gate[row] : 0.0f;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < Layout::PER_LANE; ++i) {
        const int piece = lane + i * Layout::LANES;
        if (!inside || piece >= Layout::PIECES) break;
        const i64 at = row * HEAD_DIM + piece * VEC;
        float d[VEC], x[VEC];
        load_vec<VEC>(d, dgated + at);
        load_vec<VEC>(x, out + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            sum = fmaf(d[e], x[e], sum);
            d[e] *= g;
        }
        accumulate_vec<VEC>(dout + at, d, add_dout);
    }
    sum = lanes_sum<Layout::LANES>(sum);
    if (inside && lane == 0) accumulate(dgate + row, sum, add_dgate);
}
#endif
