// The half of the shim that calls libtorch's CUDA libraries is a separate library. This is its whole interface to the other half.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>

#include "../c10d/group.h"

namespace lockstep::cuda {

struct Half {
  // Properties of CUDA, cuDNN, NCCL and the devices, by name.
  void (*describe)(const std::function<void(std::string_view, std::string_view)>& put);
  // As `cuda::make_nccl`.
  std::unique_ptr<Group> (*make_nccl)(
      const c10::intrusive_ptr<c10d::Store>& store,
      int rank,
      int size,
      int device,
      std::chrono::milliseconds timeout);
};

} // namespace lockstep::cuda
