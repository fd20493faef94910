// One AdamW update of a tensor: bf16 parameters whose f32 masters are completed by 16 bits beside
// them.
//
// The master's bits are (parameter << 16) + residue, residue signed, so the parameter is the master
// rounded to the nearest bf16 (half away from zero) and nothing is lost. Bytes an element: reads 2
// + 2 + 4 + 4 + 4, writes 2 + 2 + 4 + 4: 28.
#include "common.cuh"

typedef short i16;

struct Coefficients {
    float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
    // 1 - lr weight_decay; lr / (1 - beta1^t); 1 / sqrt(1 - beta2^t).
    float keep, step_size, v_correction, eps;
};

struct Split {
    u16 param;
    u16 residue;
};

DEVICE float join(Split s) { return __uint_as_float((u32(s.param) << 16) + u32(int(i16(s.residue)))); }

DEVICE Split split(float master) {
    // Rounding the bits of a NaN up could turn them into a number.
    if (master != master) return {0x7fc0, 0};
    const u32 bits = __float_as_uint(master), high = (bits + 0x8000u) >> 16;
    return {u16(high), u16(bits - (high << 16))};
}

// Eight or one of the 16-bit halves of masters.
template <int VEC> DEVICE void load_halves(u16 (&x)[VEC], const u16* p) {
    if constexpr (VEC == 8) {
        const uint4 raw = *reinterpret_cast<const uint4*>(p);
        const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) x[2 * i] = u16(words[i]), x[2 * i + 1] = u16(words[i] >> 16);
    } else {
        x[0] = *p;
    }
}

template <int VEC> DEVICE void store_halves(u16* p, const u16 (&x)[VEC]) {
    if constexpr (VEC == 8) {
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = u32(x[2 * i]) | u32(x[2 * i + 1]) << 16;
        *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        *p = x[0];
    }
}

template <int VEC> DEVICE void load_masters(float (&x)[VEC], const u16* param, const u16* residue) {
    u16 high[VEC], low[VEC];
    load_halves<VEC>(high, param);
    load_halves<VEC>(low, residue);
#pragma unroll
    for (int e = 0; e < VEC; ++e) x[e] = join({high[e], low[e]});
}

template <int VEC> DEVICE void store_masters(u16* param, u16* residue, const float (&x)[VEC]) {
    u16 high[VEC], low[VEC];
#pragma unroll
    for (int e = 0; e < VEC; ++e) {
        const Split s = split(x[e]);
        high[e] = s.param, low[e] = s.residue;
    }
    store_halves<VEC>(param, high);
    store_halves<VEC>(residue, low);
}

struct Update {
    u16 *param, *residue;
    const float* grad;
    float *m, *v;
    Coefficients c;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float p[VEC], g[VEC], first[VEC], second[VEC];
        load_masters<VEC>(p, param + at, residue + at);
        load_vec<VEC>(g, grad + at);
        load_vec<VEC>(first, m + at);
        load_vec<VEC>(second, v + at);
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
            const float scaled = g[e] * c.grad_scale;
            first[e] = c.beta1 * first[e] + c.one_minus_beta1 * scaled;
            second[e] = c.beta2 * second[e] + c.one_minus_beta2 * (scaled * scaled);
            p[e] = c.keep * p[e] - c.step_size * first[e] / (sqrtf(second[e]) * c.v_correction + c.eps);
        }
        store_vec<VEC>(m + at, first);
        store_vec<VEC>(v + at, second);
        store_masters<VEC>(param + at, residue + at, p);
    }
};

// `clip`, if given, is a further factor of the gradient that lies on the device. Where it is not
// finite, the gradient was not, and nothing changes.
extern "C" __global__ void __launch_bounds__(256)
adamw(u16* param, u16* residue, const float* grad, float* m, float* v, const float* clip, float grad_scale, float beta1,
      float one_minus_beta1, float beta2, float one_minus_beta2, float keep, float step_size, float v_correction, float eps,
      i64 len) {
    Coefficients c = {grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, keep, step_size, v_correction, eps};
    if (clip) {
        c.grad_scale *= *clip;
        if (!(fabsf(*clip) < infinity())) return;
    }
    for_each_piece(len, Update{param, residue, grad, m, v, c});
}

struct SplitMaster {
    const float* master;
    u16 *param, *residue;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float x[VEC];
        load_vec<VEC>(x, master + at);
        store_masters<VEC>(param + at, residue + at, x);
    }
};

extern "C" __global__ void __launch_bounds__(256) split_master(const float* master, u16* param, u16* residue, i64 len) {
    for_each_piece(len, SplitMaster{master, param, residue});
}

struct JoinMaster {
    const u16 *param, *residue;
    float* master;

    template <int VEC> DEVICE_MEMBER void piece(i64 at) const {
        float x[VEC];
        load_masters<VEC>(x, param + at, residue + at);
        store_vec<VEC>(master + at, x);
    }
};

extern "C" __global__ void __launch_bounds__(256)
join_master(const u16* param, const u16* residue, float* master, i64 len) {
    for_each_piece(len, JoinMaster{param, residue, master});
}
