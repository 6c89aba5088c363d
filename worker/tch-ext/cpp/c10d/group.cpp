// Collectives with a deadline and an error that says what to do about it.
//
// A failure of the transport leaves a group in a state that no later call could use, and Gloo tells only the direct
// neighbours of a dead process. So whoever meets a failure cuts its group, which its own neighbours meet: in a few
// milliseconds everybody knows.
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

// Starts an operation and waits for it. Arguments that libtorch refuses leave the group as it was; a failure of the
// operation itself cuts it.
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
  // A cut by another thread shows in Gloo as a closed connection: what the caller needs to know is the cut.
  if (group->cut_already()) {
    *failure = static_cast<int32_t>(Failure::aborted);
  } else if (started || *failure != static_cast<int32_t>(Failure::backend)) {
    // The cut itself runs foreign code, which may throw where no exception may leave.
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

// A destructor of c10d that throws ends the process, as C++ wants it; there is nothing to report to.
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

// Rank `j`'s `inputs[i]` arrives in rank `i`'s `outputs[j]`, for ranges of one tensor each way.
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
