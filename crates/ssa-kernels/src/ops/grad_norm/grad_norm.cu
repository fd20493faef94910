// The L2 norm of many f32 gradients: grad_norm_partial once for each tensor, then grad_norm_finish.
//
// A block squares and adds CHUNK elements in f64 and writes one partial sum; the blocks of all
// tensors write to one list in the order of the tensors (a tensor's own from `first`), which the
// last kernel adds in a fixed order. Bytes per element: 4; 64 bytes per thread are in flight.
#include "common.cuh"
#include "params.cuh"

constexpr int UNROLL = 4;

extern "C" __global__ void __launch_bounds__(THREADS)
grad_norm_partial(const GradNormPartial p) {
    const i64 begin = i64(blockIdx.x) * CHUNK;
    const int count = int(p.len - begin < CHUNK ? p.len - begin : CHUNK);
    const float* x = p.grad + begin;
    const float4* whole = reinterpret_cast<const float4*>(x);
    double sums[UNROLL] = {};
    for (int piece = threadIdx.x; piece < count / 4; piece += UNROLL * THREADS) {
        float4 raw[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int i = piece + u * THREADS;
            raw[u] = i < count / 4 ? whole[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const double a = raw[u].x, b = raw[u].y, c = raw[u].z, d = raw[u].w;
            sums[u] = fma(d, d, fma(c, c, fma(b, b, fma(a, a, sums[u]))));
        }
    }
    double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    const int rest = count / 4 * 4 + threadIdx.x;
    if (rest < count) sum += double(x[rest]) * double(x[rest]);
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) p.partial[p.first + blockIdx.x] = sum;
}

DEVICE bool is_finite(double x) { return fabs(x) < double(infinity()); }

// norm = sqrt(sum of partial), and clip = min(1, max_norm / (norm + 1e-6)), NaN unless the norm and
// all sums are finite.
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
grad_norm_finish(const GradNormFinish p) {
    double sum = 0.0;
#pragma unroll 4
    for (i64 i = threadIdx.x; i < p.partials; i += FINISH_THREADS) sum += p.partial[i];
    sum = block_sum<FINISH_THREADS>(sum);
    bool finite = is_finite(sum);
    for (i64 i = threadIdx.x; i < p.sum_count; i += FINISH_THREADS) finite &= is_finite(p.sums[i]);
    finite = __syncthreads_and(finite);
    if (threadIdx.x > 0) return;
    const double norm = sqrt(sum), factor = p.max_norm / (norm + 1e-6);
    *p.norm = norm;
    *p.clip = !finite ? __int_as_float(0x7fffffff) : factor > 1.0 ? 1.0f : float(factor);
}
