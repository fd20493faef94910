// The L2 norm of many f32 gradients: grad_norm_partial once for each tensor, then grad_norm_finish.
//
// A block squares and adds CHUNK elements in f64 and writes one partial sum; the blocks of all
// tensors write to one list in the order of the tensors (a tensor's own from `first`), which the
// last kernel adds in a fixed order. Bytes an element: 4; 64 bytes a thread are in flight.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int UNROLL = 4;
constexpr int CHUNK = 32768;

extern "C" __global__ void __launch_bounds__(THREADS)
grad_norm_partial(const float* grad, i64 len, double* partial, i64 first) {
    const i64 begin = i64(blockIdx.x) * CHUNK;
    const int count = int(len - begin < CHUNK ? len - begin : CHUNK);
    const float* x = grad + begin;
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
    if (threadIdx.x == 0) partial[first + blockIdx.x] = sum;
}

constexpr int FINISH_THREADS = 1024;

// norm = sqrt(sum of partial), and clip = min(1, max_norm / (norm + 1e-6)), NaN unless the norm and
// the `count` numbers of `losses` are finite.
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
grad_norm_finish(const double* partial, i64 partials, double max_norm, const double* losses,
                 i64 count, double* norm, float* clip) {
    double sum = 0.0, defect = 0.0;
#pragma unroll 4
    for (i64 i = threadIdx.x; i < partials; i += FINISH_THREADS) sum += partial[i];
    // 0 for a finite number, NaN for every other.
    for (i64 i = threadIdx.x; i < count; i += FINISH_THREADS) defect += losses[i] - losses[i];
    sum = block_sum<FINISH_THREADS>(sum);
    defect = block_sum<FINISH_THREADS>(defect);
    if (threadIdx.x > 0) return;
    const double root = sqrt(sum), factor = max_norm / (root + 1e-6);
    const bool finite = root < double(infinity()) && defect == 0.0;
    *norm = root;
    *clip = !finite ? __int_as_float(0x7fffffff) : factor > 1.0 ? 1.0f : float(factor);
}
