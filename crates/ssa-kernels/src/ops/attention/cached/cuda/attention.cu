// Attention of few queries over the pages of a KV cache. q, out [N, HQ, HEAD_DIM] bf16, lse [N, HQ]
// f32.
//
// The heads of a group are the 16 rows of a product, so keys and values are read once for all of
// them. A block of threads owns a token, 16 heads of one key/value head and a part of the keys; its
// warps take steps of 16 keys in turn, each through a ring of its own (lane_ring.cuh), and their
// results are added in order at the end. How keys are cut into parts depends on the number of keys
// of the token alone, never on other tokens: at most MOST_PARTS, of at least `least_keys`. The
// result of the only part is final; several are combined by combine_parts.
//
// KEYS says which keys a token at position t sees: ALL, 0 .. t; LAST, the last `window` of them;
// PAGES, those of the blocks in `indices` [N, H, slots]; MEANS, the means of complete blocks, in
// f32. In each case the keys are numbered from 0 and cut by these numbers.
//
// Given as macros: HEAD_DIM (a multiple of 8, at most 256), PAGE_SIZE, GROUP, KEYS, WARPS, STAGES.
// Grid: (parts at most, H * HEAD_TILES, tokens).
#include "params.cuh"
#include "cached.cuh"
#include "lane_ring.cuh"
#include "online_softmax.cuh"
#include "rows.cuh"

constexpr int THREADS = WARPS * WARP;
constexpr int HEAD_TILES = ceil_div(GROUP, 16);
// Rows are padded with zeros to whole vectors of four lanes.
constexpr int VECTORS = ceil_div(HEAD_DIM, 32);
constexpr int WORDS = 4 * VECTORS;
typedef Row<32 * VECTORS> Padded;
// Pieces of 16 bytes of a vector, and of the rows g and g + 8 of keys or of values.
constexpr int VECTOR_PIECES = KEYS == MEANS ? 2 : 1;
constexpr int ROW_PIECES = VECTORS * VECTOR_PIECES;
typedef LaneRing<4 * ROW_PIECES, STAGES> Ring;

// Whether vector `v` of lane `c` is inside the row.
DEVICE bool is_inside(int v, int c) {
    return HEAD_DIM % 32 == 0 || Padded::first(4 * v, c) < HEAD_DIM;
}

// The keys that a token sees, and the part of them that this block takes.
struct KeyRange {
    // Number of keys; the token of key 0, where keys are consecutive.
    int total, first_token;
    // The part, the number of parts, and the place of the page of the first key.
    int from, to, parts, first_page;

    DEVICE_MEMBER KeyRange(const CachedAttention& p, int token, const int* indices) {
        const int position = p.tokens.positions[token];
        total = position + 1, first_token = 0;
        if constexpr (KEYS == LAST) {
            total = min(total, p.window);
            first_token = position + 1 - total;
        } else if constexpr (KEYS == MEANS) {
            total /= PAGE_SIZE;
        } else if constexpr (KEYS == PAGES) {
            int used = 0;
            for (int first = 0; first < p.slots; first += WARP) {
                const int slot = first + threadIdx.x % WARP;
                used += __popc(__ballot_sync(ALL_LANES, slot < p.slots && indices[slot] >= 0));
            }
            total = (used - 1) * PAGE_SIZE + position % PAGE_SIZE + 1;
        }
        const int most = min(MOST_PARTS, max(1, ceil_div(total, p.least_keys)));
        const int length = max(16, ceil_div(ceil_div(total, most), 16) * 16);
        parts = max(1, ceil_div(total, length));
        from = blockIdx.x * length, to = min(total, from + length);
        first_page = page_index(from);
    }
    // The place of a key's page in the row of the table of pages, of means, or of `indices`.
    DEVICE_MEMBER int page_index(int key) const {
        return KEYS == MEANS ? key / MEANS_PER_PAGE : (first_token + key) / PAGE_SIZE;
    }
    DEVICE_MEMBER int pages() const { return to > from ? page_index(to - 1) - first_page + 1 : 0; }
};

// Where keys and values of the part lie.
struct Sources {
    const CachedAttention& p;
    const KeyRange& range;
    // The pages of the blocks of the part, in shared memory.
    const int* pages;
    int kv_head, kv_heads;

    // Starts the copies of the keys first + g, + 8 and their values.
    DEVICE_MEMBER void copy(const Ring& ring, int first) const {
        const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int key = min(first + g + 8 * half, range.to - 1);
            const int page = pages[range.page_index(key) - range.first_page];
            if constexpr (KEYS == MEANS) {
                const i64 row = mean_row(page, key, kv_head, kv_heads);
                copy_row(ring, half, p.key_means + row, p.value_means + row, c);
            } else {
                const bf16* row = p.pages + head_page(page, kv_head, kv_heads) +
                                  (range.first_token + key) % PAGE_SIZE * HEAD_DIM;
                copy_row(ring, half, row, row + HEAD_PAGE, c);
            }
        }
    }
    template <typename T> DEVICE_MEMBER void copy_row(const Ring& ring, int half, const T* key,
                                                      const T* value, int c) const {
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
#pragma unroll
            for (int i = 0; i < VECTOR_PIECES; ++i) {
                const int piece = half * ROW_PIECES + v * VECTOR_PIECES + i;
                const int at = is_inside(v, c) ? Padded::first(4 * v, c) + 4 * i : 0;
                ring.copy(piece, key + at, is_inside(v, c));
                ring.copy(piece + 2 * ROW_PIECES, value + at, is_inside(v, c));
            }
    }
};

// Vector `v` of row g + 8 half of keys (part 0) or values (part 1), as bf16.
DEVICE void read(u32 (&x)[4], const Ring& ring, int part, int half, int v) {
    const int piece = (2 * part + half) * ROW_PIECES + v * VECTOR_PIECES;
    const uint4 raw = ring.read(piece);
    x[0] = raw.x, x[1] = raw.y, x[2] = raw.z, x[3] = raw.w;
    if constexpr (KEYS == MEANS) {
        const uint4 rest = ring.read(piece + 1);
        const u32 words[8] = {raw.x, raw.y, raw.z, raw.w, rest.x, rest.y, rest.z, rest.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[i] = pack_bf16(__uint_as_float(words[2 * i]), __uint_as_float(words[2 * i + 1]));
        }
    }
}

// The final result of one element of a head: gated, and added to what is there, as asked.
DEVICE void write(const AttentionResult& result, int token, int head, int d, float x) {
    if (result.gates)
        x *= sigmoid(result.gates[i64(token) * result.gate_row + result.first_gate + head]);
    bf16* to = result.out + (i64(token) * result.heads + head) * HEAD_DIM + d;
    *to = to_bf16(result.add ? to_float(*to) + x : x);
}

DEVICE void write_lse(const AttentionResult& result, int token, int head, float maximum,
                      float sum) {
    if (!result.lse) return;
    result.lse[i64(token) * result.heads + head] =
        sum > 0.0f ? (maximum + __log2f(sum)) * LN_2 : -infinity();
}

// 2^(maximum - of_all), 0 for rows without keys.
DEVICE float factor(float maximum, float of_all) {
    return maximum == -infinity() ? 0.0f : exp2_approx(maximum - of_all);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    cached_attention(const AttendParts parameters) {
    const CachedAttention& p = parameters.attention;
    // The ring, then the pages of the part; at the end the results of all warps.
    extern __shared__ __align__(16) u8 shared[];
    // Maximum and sum of every row, by warp and of all.
    __shared__ float2 statistics[WARPS][16];
    __shared__ float2 totals[16];
    start_next();
    wait_for_previous();

    const int token = p.tokens.first + blockIdx.z, kv_heads = gridDim.y / HEAD_TILES,
              kv_head = blockIdx.y / HEAD_TILES;
    const int first_head = blockIdx.y % HEAD_TILES * 16, group_heads = min(16, GROUP - first_head);
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
    const int* indices = p.indices + (i64(token) * kv_heads + kv_head) * p.slots;
    const KeyRange range(p, token, indices);
    if (blockIdx.x >= range.parts) return;
    int* pages = reinterpret_cast<int*>(shared + WARPS * Ring::BYTES);
    const int* table = KEYS == MEANS ? mean_table(p.tokens, token) : page_table(p.tokens, token);
    for (int i = threadIdx.x; i < range.pages(); i += THREADS) {
        const int at = range.first_page + i;
        pages[i] = table[KEYS == PAGES ? indices[at] : at];
    }
    __syncthreads();

    const Sources sources{p, range, pages, kv_head, kv_heads};
    Ring ring(shared);
    int next = range.from + 16 * warp;
    const auto copy_next = [&] {
        if (next < range.to) sources.copy(ring, next);
        next += 16 * WARPS;
        ring.commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) copy_next();

    // Rows past the group repeat its last head; their results are not stored.
    const i64 head_row = (i64(token) * kv_heads + kv_head) * GROUP + first_head;
    u32 query[2][WORDS];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const bf16* row = p.q + (head_row + min(g + 8 * half, group_heads - 1)) * HEAD_DIM;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            uint4 x = make_uint4(0, 0, 0, 0);
            if (is_inside(v, c)) x = *reinterpret_cast<const uint4*>(row + Padded::first(4 * v, c));
            query[half][4 * v] = x.x, query[half][4 * v + 1] = x.y;
            query[half][4 * v + 2] = x.z, query[half][4 * v + 3] = x.w;
        }
    }

    float o[1][WORDS][4] = {};
    // Of scores that are scaled already.
    OnlineSoftmax<1, LaggingMaximum> softmax(1.0f);
    for (int first = range.from + 16 * warp; first < range.to; first += 16 * WARPS) {
        ring.wait();
        float s[2][4] = {};
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                u32 key[4];
                read(key, ring, 0, r, v);
#pragma unroll
                for (int i = 0; i < 4; i += 2) {
                    const int w = 4 * v + i;
                    const u32 left[4] = {query[0][w], query[1][w], query[0][w + 1],
                                         query[1][w + 1]};
                    const u32 right[2] = {key[i], key[i + 1]};
                    mma(s[r], left, right);
                }
            }
#pragma unroll
        for (int r = 0; r < 2; ++r)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool exists = first + 8 * r + 2 * c + i % 2 < range.to;
                s[r][i] = exists ? s[r][i] * p.scale : -infinity();
            }
        const float step_max[1][2] = {{lane_max<4>(s, 0), lane_max<4>(s, 1)}};
        softmax.advance(o, step_max);
#pragma unroll
        for (int r = 0; r < 2; ++r)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[r][i] = softmax.weight(s[r][i], softmax.reference(0, i / 2));
                softmax.row_sum[0][i / 2] += s[r][i];
            }
        u32 weights[4];
        pack_operand(weights, s[0], s[1]);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            u32 upper[4], lower[4];
            read(upper, ring, 1, 0, v);
            read(lower, ring, 1, 1, v);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const u32 right[2] = {transpose8x8(upper[i]), transpose8x8(lower[i])};
                mma(o[0][4 * v + i], weights, right);
            }
        }
        ring.advance();
        copy_next();
    }

    copy_async_wait_all();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float sum = softmax.total(0, half);
        if (c == 0) statistics[warp][g + 8 * half] = make_float2(softmax.row_max[0][half], sum);
    }
    __syncthreads();
    float (*results)[16][HEAD_DIM] = reinterpret_cast<float (*)[16][HEAD_DIM]>(shared);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = g + 8 * half;
        float maximum = -infinity(), sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) maximum = fmaxf(maximum, statistics[w][row].x);
#pragma unroll
        for (int w = 0; w < WARPS; ++w)
            sum += statistics[w][row].y * factor(statistics[w][row].x, maximum);
        if (warp == 0 && c == 0) totals[row] = make_float2(maximum, sum);
        const float scale = factor(softmax.row_max[0][half], maximum);
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
            const int d = Padded::first(w, c);
            if (HEAD_DIM % 32 != 0 && d >= HEAD_DIM) continue;
            *reinterpret_cast<float2*>(&results[warp][row][d]) =
                make_float2(o[0][w][2 * half] * scale, o[0][w][2 * half + 1] * scale);
        }
    }
    __syncthreads();
    const bool is_final = gridDim.x == 1;
    for (int item = threadIdx.x; item < group_heads * HEAD_DIM; item += THREADS) {
        const int row = item / HEAD_DIM, d = item % HEAD_DIM,
                  head = kv_head * GROUP + first_head + row;
        float x = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) x += results[w][row][d];
        const float2 total = totals[row];
        if (is_final) {
            write(p.result, token, head, d, total.y > 0.0f ? x / total.y : 0.0f);
            if (d == 0) write_lse(p.result, token, head, total.x, total.y);
        } else {
            const i64 part = ((i64(blockIdx.z) * kv_heads * GROUP + head) * gridDim.x) + blockIdx.x;
            p.parts[part * HEAD_DIM + d] = x;
            if (d == 0) p.part_statistics[part] = total;
        }
    }
}

// A block of threads owns a token and query head; its warps take the parts in turn. Grid: (HQ,
// tokens).
extern "C" __global__ void __launch_bounds__(THREADS) combine_parts(const CombineParts parameters) {
    const CachedAttention& p = parameters.attention;
    __shared__ float results[WARPS][HEAD_DIM];
    start_next();
    wait_for_previous();
    const int head = blockIdx.x, token = p.tokens.first + blockIdx.y, kv_head = head / GROUP,
              kv_heads = gridDim.x / GROUP;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    // Only the number of parts is needed here, for which the first part will do.
    const int* indices = p.indices + (i64(token) * kv_heads + kv_head) * p.slots;
    const int parts = KeyRange(p, token, indices).parts;
    const i64 first = (i64(blockIdx.y) * gridDim.x + head) * p.most_parts;

    float maximum = -infinity();
    for (int part = lane; part < parts; part += WARP)
        maximum = fmaxf(maximum, p.part_statistics[first + part].x);
    maximum = warp_max(maximum);
    float sum = 0.0f;
    for (int part = lane; part < parts; part += WARP) {
        const float2 statistic = p.part_statistics[first + part];
        sum += statistic.y * factor(statistic.x, maximum);
    }
    sum = warp_sum(sum);

    constexpr int PER_LANE = ceil_div(HEAD_DIM, WARP);
    float x[PER_LANE] = {};
    for (int part = warp; part < parts; part += WARPS) {
        const float weight = factor(p.part_statistics[first + part].x, maximum);
        const float* row = p.parts + (first + part) * HEAD_DIM;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            const int d = lane + i * WARP;
            if (HEAD_DIM % WARP == 0 || d < HEAD_DIM) x[i] = fmaf(row[d], weight, x[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int d = lane + i * WARP;
        if (HEAD_DIM % WARP == 0 || d < HEAD_DIM) results[warp][d] = x[i];
    }
    __syncthreads();
    for (int d = threadIdx.x; d < HEAD_DIM; d += THREADS) {
        float total = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) total += results[w][d];
        write(p.result, token, head, d, sum > 0.0f ? total / sum : 0.0f);
    }
    if (threadIdx.x == 0) write_lse(p.result, token, head, maximum, sum);
}
