// The gated activation silu(gate) * up, forward and backward, bf16.
//
// One pass, eight elements a thread and turn; occupancy keeps enough loads in flight. Bytes an
// element: forward 6, backward 10 into gradients that hold nothing yet, 12 with the activation
// computed again.
#include "common.cuh"

struct Forward {
    const bf16 *gate, *up;
    bf16* out;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float g[VEC], u[VEC];
        load_vec<VEC>(g, gate + at);
        load_vec<VEC>(u, up + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) u[e] *= g[e] * sigmoid(g[e]);
        store_vec<VEC>(out + at, u);
    }
};

extern "C" __global__ void __launch_bounds__(256) swiglu_fwd(const bf16* gate, const bf16* up, bf16* out, i64 len) {
    for_each_piece(len, Forward{gate, up, out});
}

struct Backward {
    const bf16 *dout, *gate, *up;
    bf16* dgate;
    int add_dgate;
    bf16* dup;
    int add_dup;
    bf16* out;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float d[VEC], g[VEC], u[VEC], dg[VEC], du[VEC];
        load_vec<VEC>(d, dout + at);
        load_vec<VEC>(g, gate + at);
        load_vec<VEC>(u, up + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            const float s = sigmoid(g[e]), silu = g[e] * s;
            // The derivative of silu is s (1 + g (1 - s)) = s + silu (1 - s).
            dg[e] = d[e] * u[e] * fmaf(silu, 1.0f - s, s);
            du[e] = d[e] * silu;
            u[e] *= silu;
        }
        accumulate_vec<VEC>(dgate + at, dg, add_dgate);
        accumulate_vec<VEC>(dup + at, du, add_dup);
        if (out) store_vec<VEC>(out + at, u);
    }
};

// `out`, if given, receives silu(gate) * up; it may be `dout` itself.
extern "C" __global__ void __launch_bounds__(256)
swiglu_bwd(const bf16* dout, const bf16* gate, const bf16* up, bf16* dgate, int add_dgate, bf16* dup, int add_dup,
           bf16* out, i64 len) {
    for_each_piece(len, Backward{dout, gate, up, dgate, add_dgate, dup, add_dup, out});
}
