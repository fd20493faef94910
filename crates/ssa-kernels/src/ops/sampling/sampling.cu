// Drawing tokens from logits [N, V] f32: the rules of ops/sampling/mod.rs, in three kernels.
//
// largest_logits: the largest logit of every chunk of CHUNK tokens, and of every group of 64 in it.
// list_candidates: the tokens of every chunk that may pass the filters, by bounds that are cheap
// and surely not too high, in a list; and the sum of all weights of the chunk. Without filters the
// winner of the chunk's race is its only candidate. Greedy draws do not need this kernel.
// draw_tokens: one block of threads a row applies the exact filters to the candidates, a few dozen
// as a rule, by bisection, and runs the race.
//
// Bounds: the k-th largest logit is at least the k-th largest of the groups' maxima. Top-p drops
// tokens whose weights sum to (1 - p) times the total, which is at least the weight 1 of the most
// probable token; so any token below (1 - p) / V is dropped.
//
// Arithmetic is that of the CPU, in f64; its exp and log may round differently in the last bit.
#include "common.cuh"
#include "dependent_launch.cuh"
#include "params.cuh"

constexpr int CHUNK = THREADS * TOKENS_PER_THREAD;
constexpr int CHUNK_GROUPS = THREADS / GROUP_LANES;

DEVICE double infinity_f64() { return __longlong_as_double(0x7ff0000000000000ll); }

// A logit and its token. The better of two has the larger logit, of equal ones the lower token; one
// that is not a number is better than all.
struct Choice {
    float logit;
    u32 token;

    DEVICE_MEMBER void take(Choice other) {
        if (logit != logit) return;
        const bool larger = other.logit > logit || (other.logit == logit && other.token < token);
        if (larger || other.logit != other.logit) *this = other;
    }
    DEVICE_MEMBER Choice shuffled(int offset) const {
        return {__shfl_xor_sync(ALL_LANES, logit, offset),
                __shfl_xor_sync(ALL_LANES, token, offset)};
    }
    static DEVICE_MEMBER Choice none() { return {-infinity(), 0xffffffffu}; }
};

// The time at which a token arrives in the race. The earlier wins, of equal ones the lower token.
struct Arrival {
    double time;
    u32 token;

    DEVICE_MEMBER void take(Arrival other) {
        if (other.time < time || (other.time == time && other.token < token)) *this = other;
    }
    DEVICE_MEMBER Arrival shuffled(int offset) const {
        return {__shfl_xor_sync(ALL_LANES, time, offset),
                __shfl_xor_sync(ALL_LANES, token, offset)};
    }
    static DEVICE_MEMBER Arrival none() { return {infinity_f64(), 0xffffffffu}; }
};

// The best of a block of threads, known to each of them.
template <int COUNT, typename T> DEVICE T block_best(T x) {
    __shared__ T warps[COUNT / WARP];
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) x.take(x.shuffled(offset));
    __syncthreads();
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = x;
    __syncthreads();
    x = T::none();
    for (int i = 0; i < COUNT / WARP; ++i) x.take(warps[i]);
    return x;
}

// Bits that order like the number; both zeros are equal.
DEVICE u32 ordered(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float of_ordered(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The largest key that `enough` holds for; it holds for `low` and all below its last one.
template <typename F> DEVICE u32 last_key(u32 low, u32 high, F enough) {
    while (high - low > 1) {
        const u32 middle = low + (high - low) / 2;
        if (enough(middle)) low = middle;
        else high = middle;
    }
    return low;
}

// How the token of one row is drawn, and its logits after the repetition penalty.
struct Row {
    const float* logits;
    const u32* seen;
    double temperature, top_p, min_p;
    float penalty;
    // top_k is 0 where it excludes nothing.
    int row, top_k, vocabulary;
    u32 seed[2], request[2], position;

    DEVICE_MEMBER Row(const Logits& p, int row)
        : logits(p.logits + i64(row) * p.vocab), seen(p.seen + i64(row) * ceil_div(p.vocab, 32)),
          row(row) {
        const double* numbers = p.numbers + row * DRAW_NUMBERS;
        const u32* integers = p.integers + row * DRAW_INTEGERS;
        temperature = numbers[0], top_p = numbers[1], min_p = numbers[2];
        penalty = float(numbers[3]);
        vocabulary = integers[1];
        top_k = int(integers[0]) < vocabulary ? integers[0] : 0;
        seed[0] = integers[2], seed[1] = integers[3];
        request[0] = integers[4], request[1] = integers[5];
        position = p.positions[row] + 1;
    }
    DEVICE_MEMBER bool is_greedy() const { return temperature == 0.0; }
    DEVICE_MEMBER float logit(int token) const {
        const float x = logits[token];
        if (penalty == 1.0f || !(seen[token / 32] >> token % 32 & 1)) return x;
        return x < 0.0f ? __fmul_rn(x, penalty) : __fdiv_rn(x, penalty);
    }
    DEVICE_MEMBER double log_weight(float logit, float largest) const {
        return (double(logit) - double(largest)) / temperature;
    }
    // The uniform number of a token (ops/sampling/noise.rs), above 0 and at most 1.
    DEVICE_MEMBER double uniform(u32 token) const {
        u32 counter[4] = {token / 2, position, request[0], request[1]}, key[2] = {seed[0], seed[1]};
#pragma unroll
        for (int round = 0; round < 10; ++round) {
            const u64 first = u64(counter[0]) * 0xd2511f53u, second = u64(counter[2]) * 0xcd9e8d57u;
            counter[0] = u32(second >> 32) ^ counter[1] ^ key[0], counter[1] = u32(second);
            counter[2] = u32(first >> 32) ^ counter[3] ^ key[1], counter[3] = u32(first);
            key[0] += 0x9e3779b9u, key[1] += 0xbb67ae85u;
        }
        const u32 low = counter[token % 2 * 2], high = counter[token % 2 * 2 + 1];
        const double bits = double((u64(high) << 32 | low) >> 11);
        return (bits + 0.5) * 1.1102230246251565e-16;
    }
    DEVICE_MEMBER void race(Arrival& winner, u32 token, double log_weight) const {
        const double weight = exp(log_weight), number = uniform(token);
        // The logarithm is at least the number: most tokens lose without it.
        if (number > weight * winner.time) return;
        winner.take({-log1p(-number) / weight, token});
    }
};

// Token `i` of a thread, of a chunk.
DEVICE int chunk_token(int i) {
    return blockIdx.x * CHUNK + (i / 2) * 2 * THREADS + 2 * threadIdx.x + i % 2;
}

// Grid: (chunks, N).
extern "C" __global__ void __launch_bounds__(THREADS)
largest_logits(const LargestLogits parameters) {
    const Logits& p = parameters.draw;
    start_next();
    wait_for_previous();
    const Row row(p, blockIdx.y);
    Choice best = Choice::none();
#pragma unroll
    for (int i = 0; i < TOKENS_PER_THREAD; ++i) {
        const int token = chunk_token(i);
        if (token < row.vocabulary) best.take({row.logit(token), u32(token)});
    }
    float maximum = best.logit;
#pragma unroll
    for (int offset = 1; offset < GROUP_LANES; offset *= 2)
        maximum = fmaxf(maximum, __shfl_xor_sync(ALL_LANES, maximum, offset));
    const i64 chunk = i64(blockIdx.y) * p.chunks + blockIdx.x;
    if (threadIdx.x % GROUP_LANES == 0)
        p.group_maxima[chunk * CHUNK_GROUPS + threadIdx.x / GROUP_LANES] = maximum;
    best = block_best<THREADS>(best);
    if (threadIdx.x == 0) p.best[chunk] = make_int2(__float_as_int(best.logit), int(best.token));
}

// The best of all chunks of a row.
template <int COUNT> DEVICE Choice best_of(const Logits& p, int row) {
    Choice best = Choice::none();
    for (int chunk = threadIdx.x; chunk < p.chunks; chunk += COUNT) {
        const int2 x = p.best[i64(row) * p.chunks + chunk];
        best.take({__int_as_float(x.x), u32(x.y)});
    }
    return block_best<COUNT>(best);
}

// Grid: (chunks, N).
extern "C" __global__ void __launch_bounds__(THREADS)
list_candidates(const ListCandidates parameters) {
    const Logits& p = parameters.draw;
    __shared__ int before_warp[THREADS / WARP];
    start_next();
    wait_for_previous();
    const Row row(p, blockIdx.y);
    if (row.is_greedy()) return;
    const float largest = best_of<THREADS>(p, blockIdx.y).logit;
    // Logits that are not numbers are reported by draw_tokens.
    if (!(fabsf(largest) < infinity())) return;
    const i64 chunk = i64(blockIdx.y) * p.chunks + blockIdx.x;

    // Candidates have at least the key `least` and the logarithm `lower` of their weight.
    u32 least = 0;
    const int groups = p.chunks * CHUNK_GROUPS;
    if (row.top_k > 0 && row.top_k <= groups) {
        const float* maxima = p.group_maxima + i64(blockIdx.y) * groups;
        least = last_key(0, ordered(largest) + 1, [&](u32 key) {
            int count = 0;
            for (int i = threadIdx.x; i < groups; i += THREADS) count += ordered(maxima[i]) >= key;
            return block_sum<THREADS>(count) >= row.top_k;
        });
    }
    double lower = -infinity_f64();
    if (row.top_p < 1.0 && row.top_k == 0) lower = log((1.0 - row.top_p) / row.vocabulary) - 1e-6;
    if (row.min_p > 0.0 && row.top_k == 0) lower = fmax(lower, log(row.min_p) - 1e-6);
    const bool filters = row.top_k > 0 || row.top_p < 1.0 || row.min_p > 0.0;

    double total = 0.0;
    Arrival winner = Arrival::none();
    u32 passes = 0;
#pragma unroll
    for (int i = 0; i < TOKENS_PER_THREAD; ++i) {
        const int token = chunk_token(i);
        if (token >= row.vocabulary) continue;
        const float logit = row.logit(token);
        const double log_weight = row.log_weight(logit, largest);
        if (!(log_weight > -infinity_f64())) continue;
        if (!filters) row.race(winner, token, log_weight);
        else if (ordered(logit) >= least && log_weight >= lower) passes |= 1u << i;
        if (filters && row.top_p < 1.0 && row.top_k == 0) total += exp(log_weight);
    }
    int* list = p.candidates + chunk * CHUNK;
    if (!filters) {
        winner = block_best<THREADS>(winner);
        if (threadIdx.x == 0) {
            p.counts[chunk] = winner.token != 0xffffffffu;
            list[0] = int(winner.token);
        }
        return;
    }
    total = block_sum<THREADS>(total);
    const int own = __popc(passes), lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int place = own;
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, place, offset);
        if (lane >= offset) place += other;
    }
    if (lane == WARP - 1) before_warp[warp] = place;
    __syncthreads();
    int all = 0;
    place -= own;
    for (int w = 0; w < THREADS / WARP; ++w) {
        if (w < warp) place += before_warp[w];
        all += before_warp[w];
    }
#pragma unroll
    for (int i = 0; i < TOKENS_PER_THREAD; ++i)
        if (passes >> i & 1) list[place++] = chunk_token(i);
    if (threadIdx.x == 0) p.counts[chunk] = all, p.weights[chunk] = total;
}

// The candidates of a row.
struct Candidates {
    const Logits& p;
    const Row& row;

    // Calls f(logit, token) for all of them, a warp for each chunk in turn.
    template <typename F> DEVICE_MEMBER void for_each(F f) const {
        for (int chunk = threadIdx.x / WARP; chunk < p.chunks; chunk += DRAW_THREADS / WARP) {
            const i64 at = i64(row.row) * p.chunks + chunk;
            const int count = p.counts[at];
            for (int i = threadIdx.x % WARP; i < count; i += WARP) {
                const int token = p.candidates[at * CHUNK + i];
                f(row.logit(token), u32(token));
            }
        }
    }
    // Sum of f(logit, token) over all of them.
    template <typename T, typename F> DEVICE_MEMBER T sum(F f) const {
        T sum = T(0);
        for_each([&](float logit, u32 token) { sum += f(logit, token); });
        return block_sum<DRAW_THREADS>(sum);
    }
};

// The token of a row whose largest logit is a finite one.
DEVICE u32 draw(const Logits& p, const Row& row, Choice best) {
    const Candidates candidates{p, row};
    const float largest = best.logit;
    const u32 above_all = ordered(largest) + 1;
    const auto weight = [&](float logit) { return exp(row.log_weight(logit, largest)); };
    // Top-k: logits of at least `least`.
    float least = -infinity();
    if (row.top_k > 0)
        least = of_ordered(last_key(ordered(-infinity()), above_all, [&](u32 key) {
            const auto is_above = [&](float logit, u32) { return int(ordered(logit) >= key); };
            return candidates.sum<int>(is_above) >= row.top_k;
        }));
    // Top-p: keys above `border`, and of those equal to it the tokens up to `last_equal`.
    u32 border = 0, last_equal = 0xffffffffu;
    if (row.top_p < 1.0) {
        double total = 0.0;
        if (row.top_k > 0)
            total = candidates.sum<double>(
                [&](float logit, u32) { return logit >= least ? weight(logit) : 0.0; });
        else
            for (int chunk = 0; chunk < p.chunks; ++chunk)
                total += p.weights[i64(row.row) * p.chunks + chunk];
        const double kept = total - (1.0 - row.top_p) * total;
        // Weights of the candidates above a key.
        const auto above = [&](u32 key) {
            return candidates.sum<double>([&](float logit, u32) {
                return logit >= least && ordered(logit) > key ? weight(logit) : 0.0;
            });
        };
        border = last_key(0, above_all, [&](u32 key) { return above(key) >= kept; });
        // The border is the key after the last whose upper tokens keep enough.
        if (above(border) >= kept) border += 1;
        const auto equal_until = [&](u32 token) {
            return candidates.sum<int>([&](float logit, u32 other) {
                return int(ordered(logit) == border && other <= token);
            });
        };
        const int equal = equal_until(0xffffffffu);
        if (equal > 1) {
            const double upper = above(border), each = weight(of_ordered(border));
            int wanted = 1;
            while (wanted < equal && upper + wanted * each < kept) ++wanted;
            last_equal = last_key(0, u32(p.vocab), [&](u32 token) {
                return token == 0 || equal_until(token - 1) < wanted;
            });
        }
    }
    Arrival winner = Arrival::none();
    candidates.for_each([&](float logit, u32 token) {
        const double log_weight = row.log_weight(logit, largest);
        const u32 key = ordered(logit);
        const bool in_top_p = key > border || (key == border && token <= last_equal);
        if (logit >= least && in_top_p && !(row.min_p > 0.0 && exp(log_weight) < row.min_p))
            row.race(winner, token, log_weight);
    });
    winner = block_best<DRAW_THREADS>(winner);
    return winner.token == 0xffffffffu ? best.token : winner.token;
}

// Grid: (N).
extern "C" __global__ void __launch_bounds__(DRAW_THREADS)
draw_tokens(const DrawTokens parameters) {
    const Logits& p = parameters.draw;
    start_next();
    wait_for_previous();
    const Row row(p, blockIdx.x);
    const Choice best = best_of<DRAW_THREADS>(p, blockIdx.x);
    int token = int(best.token);
    if (best.logit != best.logit) token = CODE_NOT_A_NUMBER;
    else if (best.logit == infinity()) token = CODE_INFINITE;
    else if (best.logit == -infinity()) token = CODE_ALL_LOWEST;
    else if (!row.is_greedy()) token = int(draw(p, row, best));
    __syncthreads();
    if (threadIdx.x != 0) return;
    parameters.ids[blockIdx.x] = token;
    parameters.positions[blockIdx.x] += 1;
    if (token >= 0 && row.penalty != 1.0f)
        parameters.seen[i64(blockIdx.x) * ceil_div(p.vocab, 32) + token / 32] |= 1u << token % 32;
}
