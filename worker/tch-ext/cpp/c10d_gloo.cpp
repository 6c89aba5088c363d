// Gloo through c10d, and the cut that c10d lacks: `abort` and `shutdown` of its Gloo group release nobody.
#include "group.h"

#include <algorithm>

#include <gloo/transport/pair.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace lockstep {

namespace {

// Reaches the contexts, which c10d keeps protected.
class CuttableGloo : public c10d::ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;

  void cut_pairs() {
    for (const auto& context : contexts_) {
      for (int rank = 0; rank < getSize(); ++rank) {
        auto* pair = reinterpret_cast<gloo::transport::tcp::Pair*>(context->getPair(rank).get());
        if (pair != nullptr) {
          pair->signalExceptionExternal("the group was cut");
        }
      }
    }
  }
};

class GlooGroup : public Group {
 public:
  explicit GlooGroup(c10::intrusive_ptr<CuttableGloo> gloo) : Group(gloo), gloo_(std::move(gloo)) {}

  void wait(c10d::Work& work, Deadline deadline) override {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    // 0 would mean "without end" to c10d.
    const bool done = work.wait(std::max(left, std::chrono::milliseconds(1)));
    TORCH_CHECK(done, "the work was aborted");
  }

 protected:
  void disconnect() override {
    gloo_->cut_pairs();
  }

 private:
  c10::intrusive_ptr<CuttableGloo> gloo_;
};

} // namespace

std::unique_ptr<Group> make_gloo(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    const std::string& interface,
    const std::string& address,
    std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  // Lazy connections can hang, so all are made here. Our calls come one at a time: one thread serves them.
  options->devices.push_back(
      interface.empty() ? c10d::ProcessGroupGloo::createDeviceForHostname(address, /*lazyInit=*/false)
                        : c10d::ProcessGroupGloo::createDeviceForInterface(interface, /*lazyInit=*/false));
  options->threads = 1;
  return std::make_unique<GlooGroup>(c10::make_intrusive<CuttableGloo>(store, rank, size, options));
}

} // namespace lockstep
