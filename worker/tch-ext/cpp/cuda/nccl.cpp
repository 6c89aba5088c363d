// NCCL through c10d: compiled whenever libtorch has CUDA, usable where a device is.
#include "half.h"

#include <thread>

#include <ATen/Context.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace lockstep::nccl {

namespace {

class NcclGroup : public Group {
 public:
  explicit NcclGroup(c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl) : Group(nccl), nccl_(std::move(nccl)) {}

  // NCCL's own wait only orders streams and would show a dead peer to nobody. So the host looks until the kernel is
  // done, the deadline has passed, or another thread has cut the group.
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
  // `ncclCommAbort` can hang when other ranks do not abort, too. Whoever waits sees the flag without it, so nobody
  // waits for it.
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
  TORCH_CHECK(device >= 0 && device < devices, "NCCL needs CUDA device ", device, ", and there are ", devices);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  const at::Device bound(at::kCUDA, static_cast<at::DeviceIndex>(device));
  nccl->setBoundDeviceId(bound);
  // Connects now, so that a missing peer is an error of the creation.
  nccl->eagerConnectSingleDevice(bound);
  return std::make_unique<NcclGroup>(std::move(nccl));
}

} // namespace lockstep::nccl
