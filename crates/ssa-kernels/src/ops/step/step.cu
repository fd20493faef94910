// The two ends of a decoding step: rows of the embedding for the tokens of the step, and the choice
// of the next tokens.
#include "common.cuh"
#include "dependent_launch.cuh"
#include "params.cuh"

// x [N, hidden] bf16 = rows `ids` of weight [V, hidden]. Grid: (N).
extern "C" __global__ void __launch_bounds__(THREADS) step_embedding(const StepEmbedding p) {
    start_next();
    wait_for_previous();
    const bf16* from = p.weight + i64(p.ids[blockIdx.x]) * p.hidden;
    bf16* to = p.x + i64(blockIdx.x) * p.hidden;
    for (int i = threadIdx.x; i < p.hidden; i += THREADS) to[i] = from[i];
}

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
};

// Greedy choice from logits [N, V] f32: writes it to `ids` and to row `steps` of `history`
// [.., N], where NOT_A_NUMBER says that a logit is not a number, and moves the token to the next
// position. A block of threads has a token. Grid: (N).
extern "C" __global__ void __launch_bounds__(CHOICE_THREADS) step_greedy(const StepGreedy p) {
    __shared__ Choice shared[CHOICE_THREADS / WARP];
    start_next();
    wait_for_previous();
    const float* logits = p.logits + i64(blockIdx.x) * p.vocab;
    Choice best = {-infinity(), 0xffffffffu};
#pragma unroll 8
    for (int i = threadIdx.x; i < p.vocab; i += CHOICE_THREADS) best.take({logits[i], u32(i)});
    const auto reduce = [&] {
#pragma unroll
        for (int offset = WARP / 2; offset > 0; offset /= 2) {
            best.take({__shfl_xor_sync(ALL_LANES, best.logit, offset),
                       __shfl_xor_sync(ALL_LANES, best.token, offset)});
        }
    };
    reduce();
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    best = threadIdx.x < CHOICE_THREADS / WARP ? shared[threadIdx.x]
                                               : Choice{-infinity(), 0xffffffffu};
    reduce();
    if (threadIdx.x != 0) return;
    const bool is_number = best.logit == best.logit;
    const int step = p.positions[blockIdx.x] - p.first_positions[blockIdx.x];
    p.ids[blockIdx.x] = is_number ? best.token : 0;
    if (step < p.history_steps)
        p.history[i64(step) * gridDim.x + blockIdx.x] = is_number ? int(best.token) : NOT_A_NUMBER;
    p.positions[blockIdx.x] += 1;
}
