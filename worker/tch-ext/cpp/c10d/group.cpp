// Collectives with a deadline, and with errors by what the caller can do about them.
//
// After a failure of the transport a group is unusable, and Gloo reports a dead process only to its direct neighbours. So a member that
// meets a failure cuts its group, and its neighbours do the same: all members know within a few milliseconds.
#include "group.h"
#include "../cuda.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <vector>

namespace lockstep {

Failure failure_of(std::string_view message) {
  std::string lower(message);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::array timeouts{"timed out", "timeout"};
  constexpr std::array gone{
      "connection closed", "connection reset", "broken pipe", "connection refused", "connection was closed",
      "remote process exited", "socket closed", "failed to recv", "recv failed", "send failed", "unable to connect"};
  const auto names = [&](const char* word) { return lower.find(word) != std::string::npos; };
  if (names("the group was cut")) {
    return Failure::aborted;
  }
  if (std::any_of(timeouts.begin(), timeouts.end(), names)) {
    return Failure::timeout;
  }
  if (std::any_of(gone.begin(), gone.end(), names)) {
    return Failure::peer_gone;
  }
  return Failure::backend;
}

} // namespace lockstep

namespace lockstep::group {

namespace {

// Starts an operation and waits for it. If libtorch rejects the arguments, the group stays usable; if the operation fails, the group is
// cut.
template <class Start>
char* operate(Group* group, int64_t timeout_ms, int32_t* failure, Start&& start) noexcept {
  if (group->cut_already()) {
    *failure = static_cast<int32_t>(Failure::aborted);
    return owned_text("the group was cut");
  }
  const auto timeout = std::chrono::milliseconds(std::max<int64_t>(timeout_ms, 1));
  const Deadline deadline = std::chrono::steady_clock::now() + timeout;
  bool started = false;
  char* text = classified(failure, [&] {
    const c10::intrusive_ptr<c10d::Work> work = start(group->backend(), timeout);
    started = true;
    if (work) {
      group->wait(*work, deadline);
    }
  });
  if (text == nullptr) {
    return nullptr;
  }
  // Gloo reports a cut by another thread as a closed connection, but the caller needs to know of the cut.
  if (group->cut_already()) {
    *failure = static_cast<int32_t>(Failure::aborted);
  } else if (started || *failure != static_cast<int32_t>(Failure::backend)) {
    // The cut runs foreign code, which may throw, but no exception may leave this function.
    char* second = guard([&] { group->cut(); });
    if (second != nullptr) {
      std::free(second);
    }
  }
  return text;
}

} // namespace

} // namespace lockstep::group

extern "C" {

char* lte_group_nccl(
    const lte_store* store,
    int32_t rank,
    int32_t size,
    int32_t device,
    int64_t timeout_ms,
    lockstep::Group** out,
    int32_t* failure) {
  return lockstep::classified(failure, [&] {
    *out = lockstep::cuda::make_nccl(store->store, rank, size, device, std::chrono::milliseconds(timeout_ms)).release();
  });
}

// If a destructor of c10d throws, the process ends.
void lte_group_free(lockstep::Group* group) {
  delete group;
}

char* lte_group_cut(lockstep::Group* group) {
  return lockstep::guard([&] { group->cut(); });
}

char* lte_group_all_reduce(lockstep::Group* group, const at::Tensor* tensor, int64_t timeout_ms, int32_t* failure) {
  return lockstep::group::operate(group, timeout_ms, failure, [&](c10d::Backend& backend, std::chrono::milliseconds timeout) {
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::SUM;
    options.timeout = timeout;
    std::vector<at::Tensor> tensors{*tensor};
    return backend.allreduce(tensors, options);
  });
}

// Part `i` of rank `j`'s input arrives in part `j` of rank `i`'s output.
char* lte_group_all_to_all(
    lockstep::Group* group,
    const at::Tensor* output,
    const at::Tensor* input,
    const int64_t* output_lengths,
    const int64_t* input_lengths,
    size_t count,
    int64_t timeout_ms,
    int32_t* failure) {
  return lockstep::group::operate(group, timeout_ms, failure, [&](c10d::Backend& backend, std::chrono::milliseconds timeout) {
    c10d::AllToAllOptions options;
    options.timeout = timeout;
    at::Tensor to = *output;
    at::Tensor from = *input;
    std::vector<int64_t> to_lengths(output_lengths, output_lengths + count);
    std::vector<int64_t> from_lengths(input_lengths, input_lengths + count);
    return backend.alltoall_base(to, from, to_lengths, from_lengths, options);
  });
}

} // extern "C"
