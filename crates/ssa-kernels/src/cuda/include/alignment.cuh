// The distance of the alignment loss: smooth L1, or squares if MSE is 1.
#pragma once
#include "common.cuh"

DEVICE float distance(float d) {
#if MSE
    return d * d;
#else
    // d^2 / 2 for |d| < 1 and |d| - 1/2 beyond, without a branch.
    const float size = fabsf(d), clamped = fminf(size, 1.0f);
    return clamped * (size - 0.5f * clamped);
#endif
}

// Its derivative.
DEVICE float slope(float d) {
#if MSE
    return 2.0f * d;
#else
    return d > 1.0f ? 1.0f : d < -1.0f ? -1.0f : d;
#endif
}
