// Copies between a device and the host, through pinned memory.
#include "shim.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

extern "C" {

// Copies a CPU tensor to `device`, through pinned memory that is kept until the copy is complete. Does not wait.
char* lte_upload(const at::Tensor* tensor, int32_t device, at::Tensor** out) {
  return lockstep::guard([&] {
    *out = new at::Tensor(tensor->pin_memory().to(lockstep::device_of(device), /*non_blocking=*/true));
  });
}

// Copies a tensor to host memory, which is pinned if the tensor is on a device. Does not wait.
char* lte_download(const at::Tensor* tensor, at::Tensor** out) {
  return lockstep::guard([&] { *out = new at::Tensor(tensor->detach().to(at::kCPU, /*non_blocking=*/true)); });
}

// Allocates host memory, pinned unless `device` is the CPU.
char* lte_pinned(int64_t bytes, int32_t device, at::Tensor** out) {
  return lockstep::guard([&] {
    const auto options = at::TensorOptions().dtype(at::kByte).pinned_memory(!lockstep::device_of(device).is_cpu());
    *out = new at::Tensor(at::empty({bytes}, options));
  });
}

// Copies `from` to `into`. Does not wait.
char* lte_copy_beside(const at::Tensor* from, const at::Tensor* into) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    into->copy_(*from, /*non_blocking=*/true);
  });
}

} // extern "C"
