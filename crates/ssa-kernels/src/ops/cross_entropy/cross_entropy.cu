// Softmax cross-entropy of a chunk of logits [rows, vocab], rows `stride` elements apart, and its
// gradient in place.
//
// Each block processes a row. It reads the row once for a running maximum and sum of exponentials,
// keeping the first `cached` pieces of 16 bytes in shared memory, and once more for dz, of which
// the rest comes from the L2 cache: the row is read from device memory once and written once (4
// bytes an element). 64 bytes a thread are in flight. Of rows of 128256 logits an H100 keeps 88 %
// in shared memory and moves 2.7 TB/s; 2.5 where it keeps half, 2.2 where it keeps nothing, and 2.3
// with two blocks of 512 threads that keep half together (a copy moves 3.0).
//
// Rows need not be aligned: elements before the first address of 16 bytes and after the last whole
// piece are taken one by one. Everything is f32 but the sum over threads and the loss, which are
// f64.
#include "common.cuh"
#include "params.cuh"

constexpr int UNROLL = 4;

// The sum of 2^(z log2(e) + offset) over the logits seen, offset = -log2(e) * their maximum as
// rounded, so that the exact logarithm of the sum of exponentials is (log2(sum) - offset) /
// log2(e).
//
// The maximum begins far below any logit, not at -inf: no difference of infinities can arise unless
// a logit is infinite.
struct Running {
    float max = -1e38f, offset = 1e38f * LOG2_E, sum = 0.0f;

    template <int VEC> DEVICE_MEMBER void add(const float (&z)[VEC]) {
#pragma unroll
        for (int e = 0; e < VEC; ++e) max = fmaxf(max, z[e]);
        rescale(-max * LOG2_E);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum += exp2_approx(fmaf(z[e], LOG2_E, offset));
    }

    DEVICE_MEMBER void rescale(float new_offset) {
        sum *= exp2_approx(new_offset - offset);
        offset = new_offset;
    }
};

// The parts of a row: elements before the first aligned address, whole pieces of eight, elements
// after them.
struct Row {
    int head, pieces, tail;

    template <typename T> DEVICE_MEMBER Row(const T* z, int vocab) {
        head = int((16 - reinterpret_cast<u64>(z) % 16) % 16 / sizeof(T));
        head = head < vocab ? head : vocab;
        pieces = (vocab - head) / 8;
        tail = vocab - head - 8 * pieces;
    }

    // The column of this thread's single element, or -1.
    DEVICE_MEMBER int single() const {
        const int i = threadIdx.x;
        return i < head ? i : i < head + tail ? 8 * pieces + i : -1;
    }
};

// The logarithm of the sum of exponentials over the row, from those of the threads.
DEVICE double combine(Running running) {
    running.rescale(-block_max<THREADS>(running.max) * LOG2_E);
    // The maximum of a row that holds a NaN ignores it; its sum does not.
    const double sum = block_sum<THREADS>(double(running.sum));
    return (log2(sum) - double(running.offset)) / double(LOG2_E);
}

// Writes the results of a token: lse - target for the logit `target` of the label, and lse^2.
DEVICE void write_losses(double* loss, double* lse_square, i64 token, double lse, double target) {
    if (threadIdx.x > 0) return;
    loss[token] = lse - target;
    lse_square[token] = lse * lse;
}

// Scans a row of bf16; its first `cached` pieces are copied to `cache`.
DEVICE Running scan(const bf16* z, const Row& row, uint4* cache, int cached) {
    const u32 LOWEST = 0xff80ff80u;
    Running running;
    const uint4* whole = reinterpret_cast<const uint4*>(z + row.head);
    for (int first = threadIdx.x; first < row.pieces; first += UNROLL * THREADS) {
        uint4 raw[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int piece = first + u * THREADS;
            raw[u] = make_uint4(LOWEST, LOWEST, LOWEST, LOWEST);
            if (piece < row.pieces) raw[u] = whole[piece];
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int piece = first + u * THREADS;
            if (piece < cached) cache[piece] = raw[u];
            float x[8];
            unpack8(x, raw[u]);
            running.add(x);
        }
    }
    const int single = row.single();
    if (single >= 0) {
        const float x[1] = {to_float(z[single])};
        running.add(x);
    }
    return running;
}

// The same of a row of f32.
DEVICE Running scan(const float* z, const Row& row) {
    Running running;
#pragma unroll 2
    for (int piece = threadIdx.x; piece < row.pieces; piece += THREADS) {
        float x[8];
        load8(x, z + row.head + 8 * piece);
        running.add(x);
    }
    const int single = row.single();
    if (single >= 0) {
        const float x[1] = {z[single]};
        running.add(x);
    }
    return running;
}

struct LogitGradient {
    // dz = exp(z - lse) * softmax_scale - (column == label) * target_scale, the first product as
    // one power of 2.
    float lse_shift, softmax_scale, target_scale;
    int label;

    DEVICE_MEMBER float at(float z, int column) const {
        const float p = exp2_approx(fmaf(z, LOG2_E, lse_shift)) * softmax_scale;
        return column == label ? p - target_scale : p;
    }
};

DEVICE void write_gradient(bf16* z, const Row& row, const uint4* cache, int cached,
                           const LogitGradient& gradient) {
    uint4* whole = reinterpret_cast<uint4*>(z + row.head);
    for (int first = threadIdx.x; first < row.pieces; first += UNROLL * THREADS) {
        uint4 raw[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int piece = first + u * THREADS;
            if (piece < cached) raw[u] = cache[piece];
            else if (piece < row.pieces) raw[u] = whole[piece];
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int piece = first + u * THREADS;
            if (piece >= row.pieces) break;
            float x[8];
            unpack8(x, raw[u]);
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = gradient.at(x[e], row.head + 8 * piece + e);
            store8(reinterpret_cast<bf16*>(whole + piece), x);
        }
    }
    const int single = row.single();
    if (single >= 0) store(z + single, gradient.at(to_float(z[single]), single));
}

DEVICE void clear(bf16* z, const Row& row) {
    uint4* whole = reinterpret_cast<uint4*>(z + row.head);
    for (int piece = threadIdx.x; piece < row.pieces; piece += THREADS)
        whole[piece] = make_uint4(0, 0, 0, 0);
    const int single = row.single();
    if (single >= 0) store(z + single, 0.0f);
}

// Loss and gradient of grad_scale * (loss + z_loss * lse^2); the logits become the gradient. Row r
// of the chunk is token first + r of labels and results.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
cross_entropy_fwd_bwd(const CrossEntropyFwdBwd p) {
    extern __shared__ uint4 cache[];
    const i64 token = p.first + blockIdx.x;
    bf16* z = p.logits + blockIdx.x * p.stride;
    const Row row(z, p.vocab);
    const int label = p.labels[token];
    if (label == IGNORE_INDEX) {
        clear(z, row);
        write_losses(p.loss, p.lse_square, token, 0.0, 0.0);
        return;
    }
    // Every thread reads the label's logit before the barriers of `combine`, and the row is
    // overwritten after them.
    const float target = to_float(z[label]);
    const double lse = combine(scan(z, row, cache, p.cached));
    write_losses(p.loss, p.lse_square, token, lse, double(target));
    const float lse_shift = -float(lse) * LOG2_E;
    const float softmax_scale = p.grad_scale * fmaf(2.0f * p.z_loss, float(lse), 1.0f);
    write_gradient(z, row, cache, p.cached, {lse_shift, softmax_scale, p.grad_scale, label});
}

// The loss alone, of logits in f32.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
cross_entropy_fwd(const CrossEntropyFwd p) {
    const i64 token = p.first + blockIdx.x;
    const float* z = p.logits + blockIdx.x * p.stride;
    const Row row(z, p.vocab);
    const int label = p.labels[token];
    if (label == IGNORE_INDEX) return write_losses(p.loss, p.lse_square, token, 0.0, 0.0);
    const double lse = combine(scan(z, row));
    write_losses(p.loss, p.lse_square, token, lse, double(z[label]));
}

// The loss of prediction q and its divergence sum_v p (log p - log q) from the prediction p;
// without q it is p itself. Rows of `vocab` elements, one a block.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
compare_predictions(const ComparePredictions p) {
    const i64 token = p.first + blockIdx.x;
    const int label = p.labels[token];
    if (label == IGNORE_INDEX) {
        if (threadIdx.x == 0) p.loss[token] = p.divergence[token] = 0.0;
        return;
    }
    const float* logits_p = p.p + i64(blockIdx.x) * p.vocab;
    const double lse_p = combine(scan(logits_p, Row(logits_p, p.vocab)));
    if (p.q == nullptr) {
        if (threadIdx.x == 0) {
            p.loss[token] = lse_p - double(logits_p[label]);
            p.divergence[token] = 0.0;
        }
        return;
    }
    const float* logits_q = p.q + i64(blockIdx.x) * p.vocab;
    const double lse_q = combine(scan(logits_q, Row(logits_q, p.vocab)));
    double sum = 0.0;
#pragma unroll 4
    for (int v = threadIdx.x; v < p.vocab; v += THREADS) {
        const double log_p = double(logits_p[v]) - lse_p, log_q = double(logits_q[v]) - lse_q;
        sum += double(exp2_approx(float(log_p) * LOG2_E)) * (log_p - log_q);
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) {
        p.loss[token] = lse_q - double(logits_q[label]);
        p.divergence[token] = sum;
    }
}
