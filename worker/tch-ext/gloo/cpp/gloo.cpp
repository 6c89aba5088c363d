// Gloo through c10d, and the cut that c10d lacks: `abort` and `shutdown` of its Gloo group release nobody.
#include "c10d/group.h"

#include <algorithm>

#include <gloo/transport/pair.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace lockstep::gloo {

namespace {

// Reaches the contexts, which c10d keeps protected.
class CuttableGloo : public c10d::ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;

  void cut_pairs() {
    each_pair([](auto& pair) { pair.signalExceptionExternal("the group was cut"); });
  }

  bool all_connected() {
    bool all = true;
    each_pair([&](auto& pair) { all = all && pair.isConnected(); });
    return all;
  }

 private:
  template <class Act>
  void each_pair(Act&& act) {
    for (const auto& context : contexts_) {
      for (int rank = 0; rank < getSize(); ++rank) {
        auto* pair = reinterpret_cast<::gloo::transport::tcp::Pair*>(context->getPair(rank).get());
        // A member's pair with itself is never connected.
        if (pair != nullptr && rank != getRank()) {
          act(*pair);
        }
      }
    }
  }
};

// Between two looks at the connections while an operation waits.
constexpr std::chrono::milliseconds LOOK{100};
// So many looks may find a connection closed before the operation fails: a member that has all it needs may leave a little earlier than others.
constexpr int CLOSED = 7;

class GlooGroup : public Group {
 public:
  explicit GlooGroup(c10::intrusive_ptr<CuttableGloo> gloo) : Group(gloo), gloo_(std::move(gloo)) {}

  // A thread of c10d's that nobody can wake keeps what it works on; its group's destructor would wait for it.
  ~GlooGroup() override {
    if (abandoned_) {
      gloo_.release();
    }
  }

  // Gloo tells nobody who waits for a message that broke off in its middle, so connections are looked at meanwhile.
  void wait(c10d::Work& work, Deadline deadline) override {
    int closed = 0;
    while (!completes(work, deadline)) {
      closed = gloo_->all_connected() ? 0 : closed + 1;
      abandoned_ = closed >= CLOSED;
      TORCH_CHECK(!abandoned_, "connection closed in the middle of a message");
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now());
    // 0 would mean "without end" to c10d.
    const bool done = work.wait(std::max(left, std::chrono::milliseconds(1)));
    TORCH_CHECK(done, "the work was aborted");
  }

 protected:
  void disconnect() override {
    gloo_->cut_pairs();
  }

 private:
  static Deadline now() {
    return std::chrono::steady_clock::now();
  }

  // Whether `work` completes before the next look or `deadline`, whatever came of it.
  static bool completes(c10d::Work& work, Deadline deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now());
    if (left < LOOK) {
      return true;
    }
    try {
      work.wait(LOOK);
    } catch (const std::exception&) {
      // What failed says so again; what only took longer is not complete.
    }
    return work.isCompleted();
  }

  c10::intrusive_ptr<CuttableGloo> gloo_;
  // Whether an operation was given up that goes on until its deadline.
  bool abandoned_ = false;
};

std::unique_ptr<Group> connect(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  // Lazy connections can hang, so all are made here. Our calls come one at a time: one thread serves them.
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1", /*lazyInit=*/false));
  options->threads = 1;
  return std::make_unique<GlooGroup>(c10::make_intrusive<CuttableGloo>(store, rank, size, options));
}

} // namespace

} // namespace lockstep::gloo

extern "C" {

// `device` is the CPU.
char* lte_group_gloo(
    const lte_store* store,
    int32_t rank,
    int32_t size,
    int32_t /*device*/,
    int64_t timeout_ms,
    lockstep::Group** out,
    int32_t* failure) {
  return lockstep::classified(failure, [&] {
    *out = lockstep::gloo::connect(store->store, rank, size, std::chrono::milliseconds(timeout_ms)).release();
  });
}

} // extern "C"
