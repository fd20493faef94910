// Rows of the embedding for the tokens of a decoding step.
#include "common.cuh"
#include "dependent_launch.cuh"
#include "params.cuh"

// x [N, hidden] bf16 = rows `ids` of weight [V, hidden]; row 0 in place of a token that could not
// be drawn. Grid: (N).
extern "C" __global__ void __launch_bounds__(THREADS) step_embedding(const StepEmbedding p) {
    start_next();
    wait_for_previous();
    const bf16* from = p.weight + i64(max(p.ids[blockIdx.x], 0)) * p.hidden;
    bf16* to = p.x + i64(blockIdx.x) * p.hidden;
    for (int i = threadIdx.x; i < p.hidden; i += THREADS) to[i] = from[i];
}
