// Versions and devices of CUDA, and the table through which the other half calls this half.
#include "half.h"

#include <string>

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <nccl.h>
#include <torch/csrc/cuda/nccl.h>

#include "nccl.cpp"

namespace lockstep::half {

namespace {

void describe(const std::function<void(std::string_view, std::string_view)>& put) {
  put("cuda.compiled", std::to_string(at::Context::versionCUDART()));
  put("cudnn.compiled", std::to_string(at::Context::versionCuDNN()));
  put("cudnn.runtime", std::to_string(at::Context::versionRuntimeCuDNN()));
  put("nccl.compiled", std::to_string(NCCL_MAJOR) + "." + std::to_string(NCCL_MINOR) + "." + std::to_string(NCCL_PATCH));
  const uint64_t nccl = torch::cuda::nccl::version();
  put("nccl.runtime",
      std::to_string(nccl >> 32) + "." + std::to_string((nccl >> 16) & 0xffff) + "." + std::to_string(nccl & 0xffff));
  if (!at::hasCUDA()) {
    put("cuda.devices", "0");
    return;
  }
  const int count = at::detail::getCUDAHooks().getNumGPUs();
  put("cuda.devices", std::to_string(count));
  for (int index = 0; index < count; ++index) {
    const auto* device = at::cuda::getDeviceProperties(static_cast<at::DeviceIndex>(index));
    put("cuda.device." + std::to_string(index),
        std::string(device->name) + ", compute capability " + std::to_string(device->major) + "." +
            std::to_string(device->minor) + ", " + std::to_string(device->multiProcessorCount) + " multiprocessors");
  }
}

} // namespace

} // namespace lockstep::half

extern "C" {
extern const lockstep::cuda::Half lockstep_cuda_half;
const lockstep::cuda::Half lockstep_cuda_half = {&lockstep::half::describe, &lockstep::nccl::connect};
}
