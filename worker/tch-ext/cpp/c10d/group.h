// The interface of a process group for the entry points: a backend, a way to wait for its work, and a way to cut it.
#pragma once

#include "shim.h"

#include <atomic>
#include <chrono>
#include <utility>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

extern "C" {
struct lte_store {
  c10::intrusive_ptr<c10d::Store> store;
};
}

namespace lockstep {

using Deadline = std::chrono::steady_clock::time_point;

// The kind of an error; the Rust side has the same numbers.
enum class Failure : int32_t { none = 0, timeout = 1, peer_gone = 2, aborted = 3, backend = 4 };

// The kind of an exception of c10d, Gloo or NCCL, by its text: they have no exception types that reach this code.
Failure failure_of(std::string_view message);

// As `guard`; also stores the kind of the failure in `*failure`.
template <class Body>
char* classified(int32_t* failure, Body&& body) noexcept {
  *failure = static_cast<int32_t>(Failure::none);
  char* text = guard(std::forward<Body>(body));
  if (text != nullptr) {
    *failure = static_cast<int32_t>(failure_of(text));
  }
  return text;
}

class Group {
 public:
  explicit Group(c10::intrusive_ptr<c10d::Backend> backend) : backend_(std::move(backend)) {}
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  c10d::Backend& backend() {
    return *backend_;
  }

  bool cut_already() const {
    return cut_.load();
  }

  // Makes all waiting and later operations of this group fail, here and in the peers. May be called by any thread; further calls have no
  // effect.
  void cut() {
    if (!cut_.exchange(true)) {
      disconnect();
    }
  }

  // Returns when `work` is complete. Throws if it failed, or `deadline` passed.
  virtual void wait(c10d::Work& work, Deadline deadline) = 0;

 protected:
  virtual void disconnect() = 0;

 private:
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::atomic<bool> cut_{false};
};

} // namespace lockstep
