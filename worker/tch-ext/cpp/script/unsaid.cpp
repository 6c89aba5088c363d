// Operators that write to inputs although their schemas do not show it: libtorch's normalisations.
#include "script.h"

#include <array>
#include <optional>
#include <string_view>

namespace lockstep::script::unsaid {

namespace {

// Each writes `running_mean` and `running_var`.
struct Unsaid {
  std::string_view name;
  // The flag without which it only reads them; empty if it always writes.
  std::string_view only_if;
};

const std::array<Unsaid, 9> writers{{
    {"aten::batch_norm", "training"},
    {"aten::native_batch_norm", "training"},
    {"aten::_batch_norm_impl_index", "training"},
    {"aten::cudnn_batch_norm", "training"},
    {"aten::miopen_batch_norm", "training"},
    {"aten::instance_norm", "use_input_stats"},
    {"aten::batch_norm_update_stats", ""},
    {"aten::batch_norm_gather_stats", ""},
    {"aten::batch_norm_gather_stats_with_counts", ""},
}};

// The value of `value`, if it is a constant of the graph.
std::optional<bool> always(const torch::jit::Value* value) {
  const auto constant = torch::jit::toIValue(value);
  return constant && constant->isBool() ? std::optional<bool>(constant->toBool()) : std::nullopt;
}

} // namespace

std::vector<size_t> written(const torch::jit::Node* node, const c10::FunctionSchema& schema) {
  const std::string name = node->kind().toQualString();
  std::vector<size_t> written;
  for (const auto& writer : writers) {
    if (writer.name != name) {
      continue;
    }
    const auto& arguments = schema.arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].name() == writer.only_if && always(node->input(i)) == false) {
        return {};
      }
      if (arguments[i].name() == "running_mean" || arguments[i].name() == "running_var") {
        if (node->input(i)->type()->kind() != c10::TypeKind::NoneType) {
          written.push_back(i);
        }
      }
    }
  }
  return written;
}

} // namespace lockstep::script::unsaid
