// Softmax cross-entropy of a chunk of logits [rows, vocab], rows `stride` elements apart, and its
// gradient in place.
//
// A block takes a row. It reads the row once for a running maximum and sum of exponentials, keeping
// the first `cached` pieces of 16 bytes in shared memory, and once more for dz, of which the rest
// comes from the L2 cache: the row is read from device memory once and written once (4 bytes an
// element). 64 bytes a thread are in flight. Of rows of 128256 logits an H100 keeps 88 % in shared
// memory and moves 2.7 TB/s; 2.5 where it keeps half, 2.2 where it keeps nothing, and 2.3 with two
// blocks of 512 threads that keep half together (a copy moves 3.0).
//
// Rows need not be aligned: elements before the first address of 16 bytes and after the last whole
// piece are taken one by one. Everything is f32 but the sum over threads and the loss, which are
// f64.
#include "common.cuh"

constexpr int THREADS = 1024;
constexpr int UNROLL = 4;
constexpr int IGNORE_INDEX = -100;

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

DEVICE void unpack8(float (&x)[8], const uint4& raw) {
    const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack_bf16(words[i]);
        x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
}

struct Statistics {
    double lse, loss;
};

// Combines the threads for the logit `target` of the label.
DEVICE Statistics combine(Running own, float target) {
    own.rescale(-block_max<THREADS>(own.max) * LOG2_E);
    // The maximum of a row that holds a NaN ignores it; its sum does not.
    const double sum = block_sum<THREADS>(double(own.sum));
    const double lse = (log2(sum) - double(own.offset)) / double(LOG2_E);
    return {lse, lse - double(target)};
}

DEVICE void write_statistics(const Statistics& s, double* loss, double* lse_square) {
    if (threadIdx.x > 0) return;
    *loss = s.loss;
    *lse_square = s.lse * s.lse;
}

// Statistics of a row of bf16; its first `cached` pieces are copied to `cache`.
DEVICE Running scan(const bf16* z, const Row& row, uint4* cache, int cached) {
    const u32 NOTHING = 0xff80ff80u;
    Running running;
    const uint4* whole = reinterpret_cast<const uint4*>(z + row.head);
    for (int first = threadIdx.x; first < row.pieces; first += UNROLL * THREADS) {
        uint4 raw[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int piece = first + u * THREADS;
            raw[u] = piece < row.pieces ? whole[piece] : make_uint4(NOTHING, NOTHING, NOTHING, NOTHING);
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

struct Gradient {
    // dz = exp(z - lse) * softmax_scale - (column == label) * target_scale, the first product as
    // one power of 2.
    float lse_shift, softmax_scale, target_scale;
    int label;

    DEVICE_MEMBER float at(float z, int column) const {
        const float p = exp2_approx(fmaf(z, LOG2_E, lse_shift)) * softmax_scale;
        return column == label ? p - target_scale : p;
    }
};

DEVICE void write_gradient(bf16* z, const Row& row, const uint4* cache, int cached, const Gradient& gradient) {
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
    for (int piece = threadIdx.x; piece < row.pieces; piece += THREADS) whole[piece] = make_uint4(0, 0, 0, 0);
    const int single = row.single();
    if (single >= 0) store(z + single, 0.0f);
}

// Loss and gradient of grad_scale * (loss + z_loss * lse^2); the logits become the gradient. Row r
// of the chunk is token first + r of labels and results.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
cross_entropy_fwd_bwd(bf16* logits, i64 stride, int vocab, const int* labels, float grad_scale, float z_loss, int cached,
                      i64 first, double* loss, double* lse_square) {
    extern __shared__ uint4 cache[];
    const i64 token = first + blockIdx.x;
    bf16* z = logits + blockIdx.x * stride;
    const Row row(z, vocab);
    const int label = labels[token];
    if (label == IGNORE_INDEX) {
        clear(z, row);
        write_statistics({0.0, 0.0}, loss + token, lse_square + token);
        return;
    }
    const float target = to_float(z[label]);
    const Statistics s = combine(scan(z, row, cache, cached), target);
    write_statistics(s, loss + token, lse_square + token);
    const float lse_shift = -float(s.lse) * LOG2_E, softmax_scale = grad_scale * fmaf(2.0f * z_loss, float(s.lse), 1.0f);
    write_gradient(z, row, cache, cached, {lse_shift, softmax_scale, grad_scale, label});
}

// The loss alone, of logits in f32.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
cross_entropy_fwd(const float* logits, i64 stride, int vocab, const int* labels, i64 first, double* loss,
                  double* lse_square) {
    const i64 token = first + blockIdx.x;
    const float* z = logits + blockIdx.x * stride;
    const Row row(z, vocab);
    const int label = labels[token];
    if (label == IGNORE_INDEX) return write_statistics({0.0, 0.0}, loss + token, lse_square + token);
    write_statistics(combine(scan(z, row), z[label]), loss + token, lse_square + token);
}

// The loss of prediction q and its divergence sum_v p (log p - log q) from the prediction `first`;
// without `others` q is the first itself and both are of one row. Rows of `vocab` elements, one a
// block.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
compare_predictions(const float* first, const float* others, int vocab, const int* labels, i64 first_token, double* loss,
                    double* divergence) {
    const i64 token = first_token + blockIdx.x;
    const int label = labels[token];
    if (label == IGNORE_INDEX) {
        if (threadIdx.x == 0) loss[token] = divergence[token] = 0.0;
        return;
    }
    const float* p = first + i64(blockIdx.x) * vocab;
    const double lse_p = combine(scan(p, Row(p, vocab)), 0.0f).lse;
    if (others == nullptr) {
        if (threadIdx.x == 0) loss[token] = lse_p - double(p[label]), divergence[token] = 0.0;
        return;
    }
    const float* q = others + i64(blockIdx.x) * vocab;
    const double lse_q = combine(scan(q, Row(q, vocab)), 0.0f).lse;
    double sum = 0.0;
#pragma unroll 4
    for (int v = threadIdx.x; v < vocab; v += THREADS) {
        const double log_p = double(p[v]) - lse_p, log_q = double(q[v]) - lse_q;
        sum += double(exp2_approx(float(log_p) * LOG2_E)) * (log_p - log_q);
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) loss[token] = lse_q - double(q[label]), divergence[token] = sum;
}
