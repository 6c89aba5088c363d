// Operators that no run repeats, or that change what no checkpoint holds: refused by their names, before anything runs.
#include "script.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace lockstep::script::denied {

namespace {

enum class Where {
  anywhere,
  // Only on what outlives the call: an attribute or a constant.
  on_attributes,
  // Only on what is no number and no text, where the answer is more than told.
  on_objects,
  // Where the answer is more than told.
  to_compute,
};

struct Denied {
  std::string_view name;
  Where where;
  const char* why;
};

const char* const adds_gradients =
    "adds to gradients before the step does, and no checkpoint holds gradients: compute a gradient that the loss needs with "
    "`torch.autograd.grad` of inputs";
const char* const reads_gradients =
    "reads a gradient that an earlier pass of this process left, and no checkpoint holds gradients: compute it with "
    "`torch.autograd.grad` of inputs";
const char* const replaces_memory =
    "puts another memory in the place of a tensor's: copy values into the tensor (`copy_`)";
const char* const takes_memory = "answers memory as it lies, which no run repeats: begin with values (`zeros`)";
const char* const answers_address =
    "answers a tensor that holds an address in memory: keep the weight as it is, and quantize an export";
const char* const resizes_memory =
    "changes the size of memory that outlives the call: keep a buffer of the final size, and write into a part of it";
const char* const reads_address =
    "reads an address in memory or a device, which no run repeats: number what has to be told apart";
const char* const chooses_device = "chooses the device or the stream, and the run chooses them";
const char* const reads_device = "tells which device it is, and that differs between processes: leave devices to the run";
const char* const talks = "talks to other processes, and the number of processes must change nothing: leave that to the run";

constexpr auto anywhere = Where::anywhere;
constexpr auto on_attributes = Where::on_attributes;
constexpr auto on_objects = Where::on_objects;
constexpr auto to_compute = Where::to_compute;

// One line an operator, by the name that the graph has.
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
     "counts the writes to a tensor, also those of a restored checkpoint: count in a buffer (`register_buffer`)"},
    {"prim::id", anywhere, reads_address},
    {"aten::hash", on_objects, reads_address},
    {"aten::str", on_objects, reads_address},
    {"aten::format", on_objects, reads_address},
    {"aten::percentFormat", on_objects, reads_address},
    {"prim::TimePoint", anywhere, "reads the clock, which no run repeats: count steps in a buffer (`register_buffer`)"},
    {"aten::seed", anywhere, "draws from nothing that a run names: draw from torch's generator"},
    {"aten::from_file", anywhere, "reads and writes a file beside the run's data: register its contents as a buffer"},
    {"aten::save", anywhere, "writes a file, in each process the same: write files after the run, from an export"},
    {"aten::_cufft_set_plan_cache_max_size", anywhere, "turns a switch of the whole process: leave it as the run sets it"},
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

// Namespaces of which every operator is denied.
const std::array<std::string_view, 5> talking{
    "c10d::", "_c10d_functional::", "_c10d_functional_autograd::", "symm_mem::", "_dtensor::"};

// Namespaces of operators that a module may use. Those of compilers and of back ends take memory as it lies.
const std::array<std::string_view, 6> known{"aten::", "prim::", "prims::", "profiler::", "cuda::", "quantized::"};

// Of PyTorch's own operators, whose names begin with `_`: those that scripts and traces of sound modules have, that write all of
// what they answer, and answer no memory of their inputs.
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

// Whether a value ends in an error, a warning or a line of output, and nothing is computed from it.
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
    return "is of a compiler or a back end, which may read memory as it lies: use operators of `torch`";
  }
  // A generator that is made in `forward` is part of its code: one object, whose state goes on from call to call.
  const auto* schema = node->maybeSchema();
  for (size_t i = 0; schema != nullptr && i < schema->arguments().size() && i < node->inputs().size(); ++i) {
    if (types::is_generator(schema->arguments()[i].type()) && types::is_generator(node->input(i)->type())) {
      return "draws from a generator of the module (`torch.Generator`), whose state no checkpoint holds: draw from torch's "
             "generator";
    }
  }
  return nullptr;
}

bool may_leave_unwritten(const std::string& name) {
  // Of the last two: the order of columns that LAPACK's `gelsy` begins with, and a workspace.
  constexpr std::array<std::string_view, 6> begin{
      "aten::empty", "aten::new_empty", "aten::resize", "prims::empty", "aten::linalg_lstsq", "aten::mkldnn_rnn_layer"};
  const auto is_of = [&](std::string_view with) { return begins(name, with); };
  return std::any_of(begin.begin(), begin.end(), is_of) || reaches_by_strides(name) || is_unknown_private(name);
}

bool may_hide_alias(const std::string& name) {
  // Pieces, values and scales that schemas call new.
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
