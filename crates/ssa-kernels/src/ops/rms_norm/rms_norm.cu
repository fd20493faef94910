// Root-mean-square normalization of rows of HIDDEN bf16 elements, forward (with or without the
// residual addition before it) and backward.
//
// Given as macros: HIDDEN; ROW_VEC, elements of a vector; ROW_WARPS, the warps that share a row, so
// that a lane holds at most 8 vectors of 16 bytes; BLOCK_WARPS. Below 2048 elements per warp has a
// row and no barrier is needed; at 2048 two warps were 3 % faster than one, four 12 % slower
// backward. A block takes GROUPS rows at a time.
//
// Bytes per element: forward 4, with addition 8, backward 8 (6 where the gradient holds nothing
// yet). A whole row is in flight before the first use, kept packed as bf16: 8 loads a lane forward,
// 24 backward.
//
// dweight: a warp adds its rows to sums in registers (row r belongs to group r mod groups of the
// grid), a block adds its groups in order, and rms_norm_dweight adds the blocks' partial rows in
// order in f64. The grid depends on the shape alone.
#include "common.cuh"
#include "params.cuh"

constexpr int VEC = ROW_VEC;
constexpr int PIECES = HIDDEN / VEC;
constexpr int ROW_THREADS = WARP * ROW_WARPS;
constexpr int PER_THREAD = ceil_div(PIECES, ROW_THREADS);
constexpr int THREADS = WARP * BLOCK_WARPS;
constexpr int GROUPS = THREADS / ROW_THREADS;

// VEC elements as they are in memory.
struct Packed {
    u32 words[VEC == 8 ? 4 : 1];
};

DEVICE Packed load_packed(const bf16* p) {
    Packed r;
    if constexpr (VEC == 8) {
        const uint4 raw = *reinterpret_cast<const uint4*>(p);
        r.words[0] = raw.x, r.words[1] = raw.y, r.words[2] = raw.z, r.words[3] = raw.w;
    } else {
        r.words[0] = p->bits;
    }
    return r;
}

DEVICE void unpack(float (&x)[VEC], const Packed& packed) {
    if constexpr (VEC == 8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = unpack_bf16(packed.words[i]);
            x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
        }
    } else {
        x[0] = __uint_as_float(packed.words[0] << 16);
    }
}

// A thread's pieces of a row; those past its end are zero.
DEVICE void load_row(Packed (&row)[PER_THREAD], const bf16* p, int lane) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int piece = lane + i * ROW_THREADS;
        row[i] = Packed{};
        if (piece < PIECES) row[i] = load_packed(p + piece * VEC);
    }
}

DEVICE float row_sum(float x) {
    if constexpr (ROW_WARPS == 1) return warp_sum(x);
    else return block_sum<THREADS>(x);
}

// With ADD, x becomes x + residual, rounded, and `out` is the norm of that.
template <bool ADD>
DEVICE void normalize(bf16* x, const bf16* residual, const Norm& norm) {
    const int lane = threadIdx.x % ROW_THREADS;
    const i64 row = i64(blockIdx.x) * GROUPS + threadIdx.x / ROW_THREADS;
    if (row >= norm.rows) return;
    const i64 at = row * HIDDEN;
    float values[PER_THREAD][VEC];
    {
        Packed packed[PER_THREAD], added[PER_THREAD];
        load_row(packed, x + at, lane);
        if constexpr (ADD) load_row(added, residual + at, lane);
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            unpack(values[i], packed[i]);
            if constexpr (ADD) {
                float other[VEC];
                unpack(other, added[i]);
                // The norm is that of the sum as stored, which the backward pass reads.
#pragma unroll
                for (int e = 0; e < VEC; ++e)
                    values[i][e] = to_float(to_bf16(values[i][e] + other[e]));
                const int piece = lane + i * ROW_THREADS;
                if (piece < PIECES) store_vec<VEC>(x + at + piece * VEC, values[i]);
            }
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum = fmaf(values[i][e], values[i][e], sum);
    const float scale = 1.0f / sqrtf(row_sum(sum) * (1.0f / HIDDEN) + norm.eps);
    if (lane == 0) norm.rstd[row] = scale;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int piece = lane + i * ROW_THREADS;
        if (piece >= PIECES) break;
        float w[VEC];
        load_vec<VEC>(w, norm.weight + piece * VEC);
#pragma unroll
        for (int e = 0; e < VEC; ++e) w[e] *= values[i][e] * scale;
        store_vec<VEC>(norm.out + at + piece * VEC, w);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
rms_norm_fwd(const RmsNormFwd p) {
    normalize<false>(const_cast<bf16*>(p.x), nullptr, p.norm);
}

extern "C" __global__ void __launch_bounds__(THREADS)
add_rms_norm_fwd(const AddRmsNormFwd p) {
    normalize<true>(p.x, p.residual, p.norm);
}

// Adds this block's rows to partial[blockIdx.x], a row of HIDDEN sums.
DEVICE void store_partial(const float (&sums)[PER_THREAD][VEC], float* partial) {
    __shared__ float shared[GROUPS > 1 ? HIDDEN : 1];
    const int lane = threadIdx.x % ROW_THREADS, group = threadIdx.x / ROW_THREADS;
    float* row = partial + i64(blockIdx.x) * HIDDEN;
#pragma unroll 1
    for (int turn = 0; turn < GROUPS; ++turn) {
        if (group == turn) {
#pragma unroll
            for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
                for (int e = 0; e < VEC; ++e) {
                    const int column = (lane + i * ROW_THREADS) * VEC + e;
                    if (column >= HIDDEN) break;
                    const float sum = turn > 0 ? shared[column] + sums[i][e] : sums[i][e];
                    if (turn == GROUPS - 1) row[column] = sum;
                    else shared[column] = sum;
                }
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, ROW_WARPS == 1 ? 2 : 1)
rms_norm_bwd(const RmsNormBwd p) {
    const int lane = threadIdx.x % ROW_THREADS;
    const i64 first = i64(blockIdx.x) * GROUPS + threadIdx.x / ROW_THREADS;
    float sums[PER_THREAD][VEC] = {};
    for (i64 row = first; row < p.rows; row += i64(gridDim.x) * GROUPS) {
        const i64 at = row * HIDDEN;
        Packed packed_x[PER_THREAD], packed_dout[PER_THREAD], old[PER_THREAD];
        load_row(packed_x, p.x + at, lane);
        load_row(packed_dout, p.dout + at, lane);
        if (p.dx.add) load_row(old, p.dx.at + at, lane);
        const float scale = p.rstd[row];
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            const int piece = lane + i * ROW_THREADS;
            if (piece >= PIECES) break;
            float xs[VEC], douts[VEC], w[VEC];
            unpack(xs, packed_x[i]);
            unpack(douts, packed_dout[i]);
            load_vec<VEC>(w, p.weight + piece * VEC);
#pragma unroll
            for (int e = 0; e < VEC; ++e) {
                dot = fmaf(w[e] * douts[e], xs[e], dot);
                sums[i][e] = fmaf(douts[e], xs[e] * scale, sums[i][e]);
            }
        }
        // dx = rstd (weight dout) - x rstd^3 mean(weight dout x).
        const float pull = row_sum(dot) * (1.0f / HIDDEN) * scale * scale * scale;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            const int piece = lane + i * ROW_THREADS;
            if (piece >= PIECES) break;
            float xs[VEC], douts[VEC], w[VEC], result[VEC] = {};
            unpack(xs, packed_x[i]);
            unpack(douts, packed_dout[i]);
            load_vec<VEC>(w, p.weight + piece * VEC);
            if (p.dx.add) unpack(result, old[i]);
#pragma unroll
            for (int e = 0; e < VEC; ++e) result[e] += fmaf(scale * w[e], douts[e], -pull * xs[e]);
            store_vec<VEC>(p.dx.at + at + piece * VEC, result);
        }
    }
    store_partial(sums, p.partial);
}

// dweight from the partial rows: a block takes 32 columns, its warps every DWEIGHT_WARPS-th partial
// row each, in order.
extern "C" __global__ void __launch_bounds__(DWEIGHT_WARPS * WARP)
rms_norm_dweight(const RmsNormDweight p) {
    __shared__ double shared[DWEIGHT_WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int column = blockIdx.x * WARP + lane;
    double sum = 0.0;
    if (column < HIDDEN) {
#pragma unroll 8
        for (int row = warp; row < p.partials; row += DWEIGHT_WARPS) {
            sum += p.partial[i64(row) * HIDDEN + column];
        }
    }
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= HIDDEN) return;
#pragma unroll
    for (int i = 1; i < DWEIGHT_WARPS; ++i) sum += shared[i][lane];
    accumulate(p.dweight, column, float(sum));
}
