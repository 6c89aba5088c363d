// NCCL through c10d. Compiled if libtorch has CUDA; usable on machines with a device.
#include "half.h"

#include <thread>

#include <ATen/Context.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace lockstep::nccl {

namespace {

class NcclGroup : public Group {
 public:
  explicit NcclGroup(c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl) : Group(nccl), nccl_(std::move(nccl)) {}

  // NCCL's own wait only orders streams, and would not report a dead peer. So the host polls until the kernel is complete, the deadline has
  // passed, or another thread has cut the group.
  void wait(c10d::Work& work, Deadline deadline) override {
    while (!work.isCompleted()) {
      TORCH_CHECK(!cut_already(), "the group was cut");
      TORCH_CHECK(std::chrono::steady_clock::now() < deadline, "the operation timed out");
      std::this_thread::yield();
    }
    if (const auto failure = work.exception()) {
      std::rethrow_exception(failure);
    }
    work.synchronize();
  }

 protected:
  // `ncclCommAbort` can hang if other ranks do not abort, too. Waiting threads see the flag without it, so it runs on a detached thread.
  void disconnect() override {
    std::thread([nccl = nccl_] {
      try {
        nccl->abort();
      } catch (const std::exception&) {
        // The communicator is unusable either way.
      }
    }).detach();
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl_;
};

} // namespace

std::unique_ptr<Group> connect(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    int device,
    std::chrono::milliseconds timeout) {
  const int devices = at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
  TORCH_CHECK(device >= 0 && device < devices, "NCCL needs CUDA device ", device, ", but there are ", devices);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  const at::Device bound(at::kCUDA, static_cast<at::DeviceIndex>(device));
  nccl->setBoundDeviceId(bound);
  // Connects now, so that a missing peer is reported here.
  nccl->eagerConnectSingleDevice(bound);
  return std::make_unique<NcclGroup>(std::move(nccl));
}

} // namespace lockstep::nccl
