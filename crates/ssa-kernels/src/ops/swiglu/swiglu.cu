// The gated activation silu(gate) * up, forward and backward, bf16.
//
// One pass, eight elements per thread; occupancy keeps enough loads in flight. Bytes per element:
// forward 6, backward 10 into gradients that hold nothing yet, 12 with the activation recomputed.
#include "common.cuh"
#include "params.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
swiglu_fwd(const SwigluFwd p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float g[VEC], u[VEC];
        load_vec<VEC>(g, p.gate + at);
        load_vec<VEC>(u, p.up + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) u[e] *= g[e] * sigmoid(g[e]);
        store_vec<VEC>(p.out + at, u);
    });
}

// `out`, if given, receives silu(gate) * up; it may be `dout` itself.
extern "C" __global__ void __launch_bounds__(THREADS)
swiglu_bwd(const SwigluBwd p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float d[VEC], g[VEC], u[VEC], dg[VEC], du[VEC];
        load_vec<VEC>(d, p.dout + at);
        load_vec<VEC>(g, p.gate + at);
        load_vec<VEC>(u, p.up + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            const float s = sigmoid(g[e]), silu = g[e] * s;
            // The derivative of silu is s (1 + g (1 - s)) = s + silu (1 - s).
            dg[e] = d[e] * u[e] * fmaf(silu, 1.0f - s, s);
            du[e] = d[e] * silu;
            u[e] *= silu;
        }
        accumulate_vec<VEC>(p.dgate, at, dg);
        accumulate_vec<VEC>(p.dup, at, du);
        if (p.out) store_vec<VEC>(p.out + at, u);
    });
}
