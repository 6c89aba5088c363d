// What the rest of the shim reaches through libtorch's CUDA libraries.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>

#include "c10d/group.h"

namespace lockstep::cuda {

// What can be said about CUDA, cuDNN, NCCL and the devices; empty where there is no driver.
void describe(const std::function<void(std::string_view, std::string_view)>& put);

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    int device,
    std::chrono::milliseconds timeout);

} // namespace lockstep::cuda
