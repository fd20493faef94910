// Kernels that start while the kernel before them in the stream still runs (programmatic dependent
// launch; a launch asks for it, and cards before sm_90 ignore both calls).
//
// Every thread of a kernel that is launched this way calls wait_for_previous before it touches
// anything except weights. So the end of the kernel implies the end of all kernels before it.
#pragma once
#include "common.cuh"

// Lets the next kernel start on the resources that this one does not use, once all blocks have
// started.
DEVICE void start_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits until all kernels before this one have ended and their results are visible.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
