// The functions that need libtorch's CUDA libraries, for the rest of the shim.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>

#include "c10d/group.h"

namespace lockstep::cuda {

// Properties of CUDA, cuDNN, NCCL and the devices, for the numerics fingerprint; none without a driver.
void describe(const std::function<void(std::string_view, std::string_view)>& put);

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    int device,
    std::chrono::milliseconds timeout);

} // namespace lockstep::cuda
