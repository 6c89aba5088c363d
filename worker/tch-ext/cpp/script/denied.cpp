// Operators that are not reproducible, or that change state outside of checkpoints. They are rejected by name, before the module runs.
// A reason is the predicate of the message "`forward` calls `..`, which ..".
#include "script.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace lockstep::script::denied {

namespace {

enum class Where {
  anywhere,
  // Only on values that outlive the call: attributes and constants.
  on_attributes,
  // Only on values that are neither numbers nor texts, if something is computed from the result.
  on_objects,
  // Only if something is computed from the result.
  to_compute,
};

struct Denied {
  std::string_view name;
  Where where;
  const char* why;
};

const char* const adds_gradients =
    "adds to gradients before the training step does, and checkpoints do not hold gradients: compute a gradient that the loss needs "
    "with `torch.autograd.grad` of inputs";
const char* const reads_gradients =
    "reads a gradient that an earlier pass of this process left, and checkpoints do not hold gradients: compute it with "
    "`torch.autograd.grad` of inputs";
const char* const replaces_memory =
    "replaces the memory of a tensor: copy values into the tensor instead (`copy_`)";
const char* const takes_memory = "returns uninitialised memory, which differs between runs: begin with values (`zeros`)";
const char* const answers_address =
    "returns a tensor that contains a memory address: keep the weight as it is, and quantize an export";
const char* const resizes_memory =
    "changes the size of memory that outlives the call: register a buffer of the final size, and write into a part of it";
const char* const reads_address =
    "reads a memory address or a device, which differs between runs: distinguish objects by numbers of your own";
const char* const chooses_device = "chooses the device or the stream: remove it, because Lockstep chooses them";
const char* const reads_device =
    "reads the index of the device, which differs between processes: remove it, because Lockstep chooses the device";
const char* const talks =
    "communicates with other processes, but their number must not change the result: remove it, because Lockstep reduces the gradients";

constexpr auto anywhere = Where::anywhere;
constexpr auto on_attributes = Where::on_attributes;
constexpr auto on_objects = Where::on_objects;
constexpr auto to_compute = Where::to_compute;

// The operators, by their names in graphs.
const std::array<Denied, 44> operators{{
    {"aten::backward", anywhere, adds_gradients},
    {"aten::_backward", anywhere, adds_gradients},
    {"aten::get_gradients", anywhere, reads_gradients},
    {"prim::grad", anywhere, reads_gradients},
    {"aten::retain_grad", anywhere, reads_gradients},
    {"aten::set_data", anywhere, replaces_memory},
    {"aten::set_", anywhere, replaces_memory},
    {"aten::set", anywhere, replaces_memory},
    {"aten::_cudnn_rnn_flatten_weight", anywhere, replaces_memory},
    {"aten::_empty_affine_quantized", anywhere, takes_memory},
    {"aten::_empty_per_channel_affine_quantized", anywhere, takes_memory},
    {"aten::empty_quantized", anywhere, takes_memory},
    {"aten::fbgemm_pack_gemm_matrix_fp16", anywhere, answers_address},
    {"aten::fbgemm_pack_quantized_matrix", anywhere, answers_address},
    {"aten::fbgemm_linear_quantize_weight", anywhere, answers_address},
    {"aten::resize_", on_attributes, resizes_memory},
    {"aten::resize_as_", on_attributes, resizes_memory},
    {"aten::_resize_output_", on_attributes, resizes_memory},
    {"aten::_copy_from_and_resize", on_attributes, resizes_memory},
    {"aten::sparse_resize_", on_attributes, resizes_memory},
    {"aten::sparse_resize_and_clear_", on_attributes, resizes_memory},
    {"aten::resize_as_sparse_", on_attributes, resizes_memory},
    {"aten::_version", anywhere,
     "reads a tensor's version counter, which a restored checkpoint changes, too: count in a buffer (`register_buffer`)"},
    {"prim::id", anywhere, reads_address},
    {"aten::hash", on_objects, reads_address},
    {"aten::str", on_objects, reads_address},
    {"aten::format", on_objects, reads_address},
    {"aten::percentFormat", on_objects, reads_address},
    {"prim::TimePoint", anywhere, "reads the clock, which differs between runs: count steps in a buffer (`register_buffer`)"},
    {"aten::seed", anywhere, "draws a seed that no run records: draw from torch's default generator"},
    {"aten::from_file", anywhere, "reads or writes a file that is not part of the run's data: register its contents as a buffer"},
    {"aten::save", anywhere, "writes the same file in each process: write files after the run, from an export"},
    {"aten::_cufft_set_plan_cache_max_size", anywhere, "changes a setting of the whole process: remove it"},
    {"cuda::set_stream", anywhere, chooses_device},
    {"cuda::_set_device", anywhere, chooses_device},
    {"cuda::_exchange_device", anywhere, chooses_device},
    {"cuda::_maybe_exchange_device", anywhere, chooses_device},
    {"prim::index", to_compute, reads_device},
    {"cuda::_current_device", anywhere, reads_device},
    {"cuda::device_index", anywhere, reads_device},
    {"cuda::device_count", anywhere, reads_device},
    {"prim::rpc_async", anywhere, talks},
    {"prim::rpc_sync", anywhere, talks},
    {"prim::rpc_remote", anywhere, talks},
}};

// Namespaces whose operators are all denied.
const std::array<std::string_view, 5> talking{
    "c10d::", "_c10d_functional::", "_c10d_functional_autograd::", "symm_mem::", "_dtensor::"};

// Namespaces of operators that a module may use. Operators of compilers and back ends may read uninitialised memory.
const std::array<std::string_view, 6> known{"aten::", "prim::", "prims::", "profiler::", "cuda::", "quantized::"};

// PyTorch's private operators (with `_` at the beginning of the name) that harmless modules contain after scripting or tracing. They
// write their whole output, and do not return memory of their inputs.
const std::array<std::string_view, 10> whole{
    "aten::_convolution",
    "aten::_get_tracing_state",
    "aten::_native_multi_head_attention",
    "aten::_pack_padded_sequence",
    "aten::_pad_packed_sequence",
    "aten::_set_item",
    "aten::_shape_as_tensor",
    "aten::_transformer_encoder_layer_fwd",
    "aten::_unwrap_optional",
    "aten::_weight_norm"};

// Whether a value is only used in an error, a warning or a line of output, and nothing is computed from it.
bool only_told(const torch::jit::Value* value, std::set<const torch::jit::Value*>& seen) {
  namespace prim = c10::prim;
  constexpr std::array<std::string_view, 3> tell{"prim::RaiseException", "aten::warn", "prim::Print"};
  constexpr std::array<std::string_view, 7> join{
      "aten::add", "aten::format", "aten::join", "aten::percentFormat", "aten::str", "prim::ListConstruct",
      "prim::TupleConstruct"};
  if (!seen.insert(value).second) {
    return true;
  }
  for (const auto& use : value->uses()) {
    const auto* user = use.user;
    const std::string_view kind = user->kind().toQualString();
    if (std::find(tell.begin(), tell.end(), kind) != tell.end()) {
      continue;
    }
    const torch::jit::Value* next = nullptr;
    if (std::find(join.begin(), join.end(), kind) != join.end()) {
      next = user->output();
    } else if (kind == "aten::append") {
      next = user->input(0);
    } else if (user->kind() == prim::Return && user->owningBlock()->owningNode() != nullptr &&
               user->owningBlock()->owningNode()->kind() == prim::If) {
      next = user->owningBlock()->owningNode()->output(use.offset);
    }
    if (next == nullptr || !only_told(next, seen)) {
      return false;
    }
  }
  return true;
}

bool only_told(const torch::jit::Value* value) {
  std::set<const torch::jit::Value*> seen;
  return only_told(value, seen);
}

bool is_unknown_private(std::string_view name) {
  const bool own = begins(name, "aten::_") && !begins(name, "aten::__");
  return own && std::find(whole.begin(), whole.end(), name) == whole.end();
}

bool takes_addresses(const torch::jit::Node* node, bool tensors) {
  for (const auto* input : node->inputs()) {
    if (types::has_address(input->type(), tensors)) {
      return true;
    }
  }
  return false;
}

} // namespace

const char* why(const torch::jit::Node* node, bool attributes) {
  const std::string name = node->kind().toQualString();
  for (const auto& denied : operators) {
    if (denied.name != name) {
      continue;
    }
    const bool applies = denied.where == anywhere || (denied.where == on_attributes && attributes) ||
        (denied.where == to_compute && !only_told(node->output())) ||
        (denied.where == on_objects && takes_addresses(node, name == "aten::hash") && !only_told(node->output()));
    return applies ? denied.why : nullptr;
  }
  const auto is_of = [&](std::string_view space) { return begins(name, space); };
  if (std::any_of(talking.begin(), talking.end(), is_of)) {
    return talks;
  }
  if (std::none_of(known.begin(), known.end(), is_of)) {
    return "belongs to a compiler or a back end and may read uninitialised memory: use operators of `torch`";
  }
  // A generator that is created in `forward` is part of its code: one object, whose state lasts from call to call.
  const auto* schema = node->maybeSchema();
  for (size_t i = 0; schema != nullptr && i < schema->arguments().size() && i < node->inputs().size(); ++i) {
    if (types::is_generator(schema->arguments()[i].type()) && types::is_generator(node->input(i)->type())) {
      return "draws from a generator of the module (`torch.Generator`), whose state checkpoints do not hold: draw from torch's "
             "default generator";
    }
  }
  return nullptr;
}

bool may_leave_unwritten(const std::string& name) {
  // For the last two: the initial order of columns of LAPACK's `gelsy`, and a workspace.
  constexpr std::array<std::string_view, 6> begin{
      "aten::empty", "aten::new_empty", "aten::resize", "prims::empty", "aten::linalg_lstsq", "aten::mkldnn_rnn_layer"};
  const auto is_of = [&](std::string_view with) { return begins(name, with); };
  return std::any_of(begin.begin(), begin.end(), is_of) || reaches_by_strides(name) || is_unknown_private(name);
}

bool may_hide_alias(const std::string& name) {
  // Pieces, values and scales, which schemas declare as new tensors.
  constexpr std::array<std::string_view, 4> begin{
      "aten::unsafe_", "aten::sparse_", "aten::values", "aten::q_per_channel_"};
  const auto is_of = [&](std::string_view with) { return begins(name, with); };
  return std::any_of(begin.begin(), begin.end(), is_of) || is_unknown_private(name);
}

bool reaches_by_strides(const std::string& name) {
  return begins(name, "aten::as_strided") || name == "aten::_reshape_alias";
}

bool enters_autocast(const torch::jit::Node* node) {
  if (node->kind() != c10::prim::Enter) {
    return false;
  }
  const auto type = node->input(0)->type()->cast<c10::ClassType>();
  constexpr std::string_view end = "autocast_mode.autocast";
  const std::string name = type && type->name() ? type->name()->qualifiedName() : std::string();
  return name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

} // namespace lockstep::script::denied
