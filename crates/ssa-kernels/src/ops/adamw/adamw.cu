// One AdamW update of a tensor of bf16 parameters; 16 more bits per element complete the f32
// masters.
//
// The bits of a master are (parameter << 16) + residue, residue signed, so the parameter is the
// master rounded to the nearest bf16 (half away from zero) and nothing is lost. Bytes per element:
// reads 2 + 2 + 4 + 4 + 4, writes 2 + 2 + 4 + 4: 28.
#include "common.cuh"
#include "params.cuh"

struct Split {
    u16 param, residue;
};

DEVICE float join(Split s) {
    return __uint_as_float((u32(s.param) << 16) + u32(int(i16(s.residue))));
}

DEVICE Split split(float master) {
    // Rounding the bits of a NaN up could turn them into a number.
    if (master != master) return {0x7fc0, 0};
    const u32 bits = __float_as_uint(master), high = (bits + 0x8000u) >> 16;
    return {u16(high), u16(bits - (high << 16))};
}

// One or eight 16-bit halves of masters, upper or lower.
template <int VEC> DEVICE void load_halves(u16 (&x)[VEC], const void* half) {
    if constexpr (VEC == 8) {
        const uint4 raw = *static_cast<const uint4*>(half);
        const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) x[2 * i] = u16(words[i]), x[2 * i + 1] = u16(words[i] >> 16);
    } else {
        x[0] = *static_cast<const u16*>(half);
    }
}

template <int VEC> DEVICE void store_halves(void* half, const u16 (&x)[VEC]) {
    if constexpr (VEC == 8) {
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = u32(x[2 * i]) | u32(x[2 * i + 1]) << 16;
        *static_cast<uint4*>(half) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        *static_cast<u16*>(half) = x[0];
    }
}

template <int VEC>
DEVICE void load_masters(float (&x)[VEC], const bf16* param, const i16* residue) {
    u16 high[VEC], low[VEC];
    load_halves<VEC>(high, param);
    load_halves<VEC>(low, residue);
#pragma unroll
    for (int e = 0; e < VEC; ++e) x[e] = join({high[e], low[e]});
}

template <int VEC>
DEVICE void store_masters(bf16* param, i16* residue, const float (&x)[VEC]) {
    u16 high[VEC], low[VEC];
#pragma unroll
    for (int e = 0; e < VEC; ++e) {
        const Split s = split(x[e]);
        high[e] = s.param, low[e] = s.residue;
    }
    store_halves<VEC>(param, high);
    store_halves<VEC>(residue, low);
}

// `clip`, if given, is another factor of the gradient. If it is not finite, the gradient or a loss
// was not finite, and nothing changes.
extern "C" __global__ void __launch_bounds__(THREADS)
adamw(const AdamW p) {
    float grad_scale = p.grad_scale;
    if (p.clip) {
        grad_scale *= *p.clip;
        if (!(fabsf(*p.clip) < infinity())) return;
    }
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float x[VEC], g[VEC], m[VEC], v[VEC];
        load_masters<VEC>(x, p.param + at, p.residue + at);
        load_vec<VEC>(g, p.grad + at);
        load_vec<VEC>(m, p.m + at);
        load_vec<VEC>(v, p.v + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            const float scaled = g[e] * grad_scale;
            m[e] = p.beta1 * m[e] + p.one_minus_beta1 * scaled;
            v[e] = p.beta2 * v[e] + p.one_minus_beta2 * (scaled * scaled);
            x[e] = p.keep * x[e] - p.step_size * m[e] / (sqrtf(v[e]) * p.v_correction + p.eps);
        }
        store_vec<VEC>(p.m + at, m);
        store_vec<VEC>(p.v + at, v);
        store_masters<VEC>(p.param + at, p.residue + at, x);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
split_master(const SplitMaster p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float x[VEC];
        load_vec<VEC>(x, p.master + at);
        store_masters<VEC>(p.param + at, p.residue + at, x);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
join_master(const JoinMaster p) {
    for_each_piece(p.len, [&](auto vec, i64 at) {
        constexpr int VEC = vec.value;
        float x[VEC];
        load_masters<VEC>(x, p.param + at, p.residue + at);
        store_vec<VEC>(p.master + at, x);
    });
}
