// The sigmoid of the projected gates, and the product of attention outputs with their gates. The
// projections themselves are matrix products.
//
// gate_apply: rows are the heads of all tokens, HEAD_DIM elements of bf16 with one f32 gate each.
// RowLayout divides a row among neighboring lanes, so that dgate is a sum over a few lanes. Bytes
// an element: forward 4, backward 6.
#include "common.cuh"
#include "params.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
gate_sigmoid(const GateSigmoid p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float values[VEC];
        load_vec<VEC>(values, p.x + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) values[e] = sigmoid(values[e]);
        store_vec<VEC>(p.x + at, values);
    });
}

// ds = dgate gate (1 - gate), rounded for the matrix products that follow.
extern "C" __global__ void __launch_bounds__(THREADS)
gate_sigmoid_bwd(const GateSigmoidBwd p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float d[VEC], g[VEC];
        load_vec<VEC>(d, p.dgate + at);
        load_vec<VEC>(g, p.gate + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) d[e] *= g[e] * (1.0f - g[e]);
        store_vec<VEC>(p.ds + at, d);
    });
}

#ifdef HEAD_DIM
using Layout = RowLayout<HEAD_DIM, ROW_VEC, ROW_LANES>;
constexpr int VEC = Layout::VEC;
constexpr int ROWS = THREADS / Layout::LANES;

// Launched with a group of lanes for every row, in whole blocks.
extern "C" __global__ void __launch_bounds__(THREADS)
gate_apply_fwd(const GateApplyFwd p) {
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / Layout::LANES;
    if (row >= p.rows) return;
    const float g = p.gate[row];
    Layout::for_each_vector(row, true, [&](i64 at) {
        float x[VEC];
        load_vec<VEC>(x, p.out + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) x[e] *= g;
        store_vec<VEC>(p.gated + at, x);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
gate_apply_bwd(const GateApplyBwd p) {
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / Layout::LANES;
    // Lanes without a row stay active, since the lanes of a warp reduce together.
    const bool inside = row < p.rows;
    const float g = inside ? p.gate[row] : 0.0f;
    float sum = 0.0f;
    Layout::for_each_vector(row, inside, [&](i64 at) {
        float d[VEC], x[VEC];
        load_vec<VEC>(d, p.dgated + at);
        load_vec<VEC>(x, p.out + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            sum = fmaf(d[e], x[e], sum);
            d[e] *= g;
        }
        accumulate_vec<VEC>(p.dout, at, d);
    });
    sum = lanes_sum<Layout::LANES>(sum);
    if (inside && threadIdx.x % Layout::LANES == 0) accumulate(p.dgate, row, sum);
}
#endif
