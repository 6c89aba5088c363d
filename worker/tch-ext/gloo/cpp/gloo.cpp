// Gloo through c10d, and a cut, which c10d lacks: `abort` and `shutdown` of its Gloo group do not end waiting operations.
#include "c10d/group.h"

#include <algorithm>

#include <gloo/transport/pair.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace lockstep::gloo {

namespace {

// Gives access to the contexts, which are protected in c10d.
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
        // The pair of a member with itself is never connected.
        if (pair != nullptr && rank != getRank()) {
          act(*pair);
        }
      }
    }
  }
};

// Time between two checks of the connections while an operation waits.
constexpr std::chrono::milliseconds LOOK{100};
// Number of checks in a row that may find a closed connection before the operation fails: a member that is finished may leave a little
// earlier than others.
constexpr int CLOSED = 7;

class GlooGroup : public Group {
 public:
  explicit GlooGroup(c10::intrusive_ptr<CuttableGloo> gloo) : Group(gloo), gloo_(std::move(gloo)) {}

  // After an abandoned operation the group is leaked: its destructor would wait for a thread of c10d that nobody can wake.
  ~GlooGroup() override {
    if (abandoned_) {
      gloo_.release();
    }
  }

  // Gloo does not report a connection that breaks in the middle of a message, so the connections are checked during the wait.
  void wait(c10d::Work& work, Deadline deadline) override {
    int closed = 0;
    while (!completes(work, deadline)) {
      closed = gloo_->all_connected() ? 0 : closed + 1;
      abandoned_ = closed >= CLOSED;
      TORCH_CHECK(!abandoned_, "connection closed in the middle of a message");
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now());
    // At least 1, because 0 means no deadline in c10d.
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

  // Whether `work` completes, or fails, before the next check or `deadline`.
  static bool completes(c10d::Work& work, Deadline deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now());
    if (left < LOOK) {
      return true;
    }
    try {
      work.wait(LOOK);
    } catch (const std::exception&) {
      // A failure is thrown again by the caller's wait; work that only takes longer is not complete.
    }
    return work.isCompleted();
  }

  c10::intrusive_ptr<CuttableGloo> gloo_;
  // Whether an operation was abandoned, which still runs until its deadline.
  bool abandoned_ = false;
};

std::unique_ptr<Group> connect(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  // Lazy connections can hang, so all are opened here. Calls come one at a time, so one thread is enough.
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
