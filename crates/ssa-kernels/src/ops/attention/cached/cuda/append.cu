// Keys and values of new tokens to the pages of a KV cache, and the means of the pages that they
// complete.
//
// The mean of a page is the sum of its keys in token order, in f32, times 1 / PAGE_SIZE: the same
// bits however the page was filled.
//
// Given as macros: HEAD_DIM, PAGE_SIZE.
#include "params.cuh"
#include "cached.cuh"

constexpr int VECTORS = HEAD_DIM / 8;
constexpr int HALF = HEAD_DIM / 2;
// Pairs of a head that a lane rotates.
constexpr int PAIRS = ceil_div(HALF, WARP);

// The place of the key of a token and head in the pages. If it completes its page, also the places
// of the keys of the page and of their mean.
struct Slot {
    i64 key, page, mean;
    bool completes;

    DEVICE_MEMBER Slot(const CachedTokens& tokens, int token, int kv_head, int kv_heads) {
        const int position = tokens.positions[token], block = position / PAGE_SIZE;
        page = head_page(page_table(tokens, token)[block], kv_head, kv_heads);
        key = page + position % PAGE_SIZE * HEAD_DIM;
        completes = (position + 1) % PAGE_SIZE == 0;
        if (!completes) return;
        mean =
            mean_row(mean_table(tokens, token)[block / MEANS_PER_PAGE], block, kv_head, kv_heads);
    }
};

// The mean of one element of all keys, or values, of a page.
DEVICE float column_mean(const bf16* column) {
    float sum = 0.0f;
#pragma unroll 8
    for (int i = 0; i < PAGE_SIZE; ++i) sum += to_float(column[i * HEAD_DIM]);
    return sum * (1.0f / PAGE_SIZE);
}

// k, v [N, H, HEAD_DIM] bf16. A thread copies eight elements of a key and of the value.
extern "C" __global__ void __launch_bounds__(THREADS) append_kv(const AppendKv p) {
    start_next();
    wait_for_previous();
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x, row = item / VECTORS;
    if (row >= i64(p.count) * p.kv_heads) return;
    const Slot slot(p.tokens, int(row / p.kv_heads), int(row % p.kv_heads), p.kv_heads);
    bf16* to = p.pages + slot.key + item % VECTORS * 8;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(p.k + item * 8);
    *reinterpret_cast<uint4*>(to + HEAD_PAGE) = *reinterpret_cast<const uint4*>(p.v + item * 8);
}

// Launched after the keys and values are written. A warp owns a token and head, and does nothing
// unless the token completes its page.
extern "C" __global__ void __launch_bounds__(THREADS) page_means(const PageMeans p) {
    start_next();
    wait_for_previous();
    const i64 row = (i64(blockIdx.x) * THREADS + threadIdx.x) / WARP;
    if (row >= i64(p.count) * p.kv_heads) return;
    const Slot slot(p.tokens, int(row / p.kv_heads), int(row % p.kv_heads), p.kv_heads);
    if (!slot.completes) return;
    const bf16* keys = p.pages + slot.page;
    for (int d = threadIdx.x % WARP; d < HEAD_DIM; d += WARP) {
        p.key_means[slot.mean + d] = column_mean(keys + d);
        if (p.value_means) p.value_means[slot.mean + d] = column_mean(keys + HEAD_PAGE + d);
    }
}

// The elements of a head that a lane holds: pairs (i, i + HALF).
typedef float Pairs[PAIRS][2];

// Applies f(x, d) to the elements of a lane; d is the place in the head.
template <typename F> DEVICE void for_each_element(Pairs& x, F f) {
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        const int d = i * WARP + threadIdx.x % WARP;
        if (HALF % WARP != 0 && d >= HALF) break;
        f(x[i][0], d);
        f(x[i][1], d + HALF);
    }
}

// From projections to attention, for some tokens of each sequence: biases, norms of heads and the
// rotation where there are such, queries to their tensor, keys and values to the pages, and the
// means of pages that become complete. projected [N, row_length] f32, first the HQ query heads,
// then H keys and H values. A warp owns a head. Grid: (heads / warps, N).
extern "C" __global__ void __launch_bounds__(THREADS) rope_append(const RopeAppend p) {
    start_next();
    wait_for_previous();
    const int token = blockIdx.y;
    const int head = (blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (head >= p.query_heads + 2 * p.kv_heads) return;
    const bool is_query = head < p.query_heads, is_value = head >= p.query_heads + p.kv_heads;

    const int kv_head = is_value ? head - p.query_heads - p.kv_heads : head - p.query_heads;

    const float* row = p.projected + i64(token) * p.row_length + head * HEAD_DIM;
    Pairs x;
    for_each_element(x, [&](float& x, int d) { x = row[d]; });
    const bf16* bias = is_query ? p.biases[0] : is_value ? p.biases[2] : p.biases[1];
    if (bias) {
        const bf16* of_head = bias + (is_query ? head : kv_head) * HEAD_DIM;
        for_each_element(x, [&](float& x, int d) { x += to_float(of_head[d]); });
    }
    const bf16* norm = is_query ? p.query_norm : p.key_norm;
    if (norm && !is_value) {
        float sum = 0.0f;
        for_each_element(x, [&](float& x, int) { sum = fmaf(x, x, sum); });
        const float scale = 1.0f / sqrtf(warp_sum(sum) * (1.0f / HEAD_DIM) + p.eps);
        for_each_element(x, [&](float& x, int d) { x = to_float(norm[d]) * (x * scale); });
    }
    if (!is_value) {
        const float* cosines = p.angles + i64(p.tokens.positions[token]) * HALF;
        const float* sines = cosines + i64(p.angle_positions) * HALF;
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            const int d = i * WARP + threadIdx.x % WARP;
            if (HALF % WARP != 0 && d >= HALF) break;
            const float a = x[i][0], b = x[i][1];
            x[i][0] = a * cosines[d] - b * sines[d];
            x[i][1] = b * cosines[d] + a * sines[d];
        }
    }
    if (is_query) {
        bf16* to = p.q + (i64(token) * p.query_heads + head) * HEAD_DIM;
        for_each_element(x, [&](float& x, int d) { to[d] = to_bf16(x); });
        return;
    }
    const Slot slot(p.tokens, token, kv_head, p.kv_heads);
    const i64 part = is_value ? HEAD_PAGE : 0;
    for_each_element(x, [&](float& x, int d) { p.pages[slot.key + part + d] = to_bf16(x); });
    float* means = is_value ? p.value_means : p.key_means;
    if (!p.write_means || !slot.completes || !means) return;
    // A lane adds up the elements that it has just written and those of earlier steps.
    const bf16* page = p.pages + slot.page + part;
    for_each_element(x, [&](float&, int d) { means[slot.mean + d] = column_mean(page + d); });
}
