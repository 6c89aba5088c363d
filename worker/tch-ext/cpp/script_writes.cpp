// What `forward` and everything that it calls may write: found in the graphs, before anything runs.
//
// Each value of a graph gets the attributes that it may be, and those that may lie in it (a list holds its elements), by
// passes over the graph until nothing is added. An alias that this does not follow is found when the module runs, by
// `lte_script_attributes`.
#include "script.h"
#include "shim.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>

using lockstep::guard;

namespace lockstep {

namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;
using Names = std::set<std::string>;

// Stands for a tensor that is written in the graph itself, as traced modules have them.
const char* const constant_name = "(a constant)";

struct Reach {
  Names is, holds;
};

bool is_mutable(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::ComplexType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::NoneType:
    case c10::TypeKind::DeviceObjType:
    case c10::TypeKind::EnumType:
      return false;
    case c10::TypeKind::TupleType:
    case c10::TypeKind::OptionalType:
    case c10::TypeKind::UnionType:
      for (const auto& inner : type->containedTypes()) {
        if (is_mutable(inner)) {
          return true;
        }
      }
      return type->containedTypes().empty();
    default:
      return true;
  }
}

// Whether what lies in a value of this type can be changed.
bool holds_mutable(const c10::TypePtr& type) {
  const auto inner = type->containedTypes();
  if (type->kind() == c10::TypeKind::ClassType || inner.empty()) {
    return type->kind() != c10::TypeKind::TensorType;
  }
  for (const auto& one : inner) {
    if (is_mutable(one)) {
      return true;
    }
  }
  return false;
}

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// The place that a dotted path names; none for what lies in a list or the like.
std::optional<Slot> locate(const torch::jit::Module& root, const std::string& path) {
  auto object = root._ivalue();
  for (size_t from = 0;;) {
    const auto dot = path.find('.', from);
    const auto name = path.substr(from, dot == std::string::npos ? dot : dot - from);
    const auto index = object->type()->findAttributeSlot(name);
    if (!index) {
      return std::nullopt;
    }
    if (dot == std::string::npos) {
      return Slot{object, *index, path};
    }
    const auto& inner = object->getSlot(*index);
    if (!inner.isObject()) {
      return std::nullopt;
    }
    object = inner.toObject();
    from = dot + 1;
  }
}

class Writes {
 public:
  explicit Writes(const torch::jit::Module& root) : root_(root) {}

  void find() {
    do {
      grown_ = false;
      call("", "forward", {});
    } while (grown_);
  }

  // Attributes that are assigned.
  Names assigned;
  // Attributes that an operator changes in place, with the operator.
  std::map<std::string, std::string> changed;
  // Operators that draw from nothing that a run names.
  Names random;
  bool forks = false;

 private:
  void merge(Names& into, const Names& from) {
    for (const auto& name : from) {
      grown_ |= into.insert(name).second;
    }
  }

  void add(const Value* value, const Reach& more) {
    if (is_mutable(value->type())) {
      auto& own = reached_[value];
      merge(own.is, more.is);
      merge(own.holds, more.holds);
    }
  }

  // What all inputs may be or hold, in one.
  Reach inputs_of(const Node* node) {
    Reach all;
    for (const auto* input : node->inputs()) {
      const auto& own = reached_[input];
      all.is.insert(own.is.begin(), own.is.end());
      all.holds.insert(own.holds.begin(), own.holds.end());
    }
    return all;
  }

  static Reach within(const Reach& reach) {
    Reach both{{}, reach.holds};
    both.holds.insert(reach.is.begin(), reach.is.end());
    return both;
  }

  // Goes through a method of the module at `path`; what it may answer.
  Reach call(const std::string& path, const std::string& method, const std::vector<Reach>& arguments) {
    auto object = root_._ivalue();
    if (!path.empty()) {
      const auto slot = locate(root_, path);
      object = slot->value().toObject();
    }
    auto& graph = graphs_[{path, method}];
    if (!graph) {
      auto& function = torch::jit::toGraphFunction(object->type()->getMethod(method));
      graph = function.graph()->copy();
      torch::jit::Inline(*graph);
    }
    Reach answer;
    if (!active_.insert(graph.get()).second) {
      return answer;
    }
    add(graph->inputs().at(0), {{path}, {}});
    for (size_t i = 0; i < arguments.size() && i + 1 < graph->inputs().size(); ++i) {
      add(graph->inputs()[i + 1], arguments[i]);
    }
    block(graph->block());
    for (const auto* output : graph->outputs()) {
      answer.is.insert(reached_[output].is.begin(), reached_[output].is.end());
      answer.holds.insert(reached_[output].holds.begin(), reached_[output].holds.end());
    }
    active_.erase(graph.get());
    return answer;
  }

  void block(const Block* block) {
    for (const auto* node : block->nodes()) {
      visit(node);
    }
  }

  void visit(const Node* node) {
    namespace prim = c10::prim;
    const auto kind = node->kind();
    if (kind == prim::GetAttr) {
      get(node);
    } else if (kind == prim::SetAttr) {
      for (const auto& path : reached_[node->input(0)].is) {
        grown_ |= assigned.insert(joined(path, node->s(torch::jit::attr::name))).second;
      }
    } else if (kind == prim::Constant) {
      if (node->output()->type()->kind() == c10::TypeKind::TensorType) {
        add(node->output(), {{constant_name}, {}});
      }
    } else if (kind == prim::If) {
      for (const auto* inner : node->blocks()) {
        block(inner);
        for (size_t i = 0; i < node->outputs().size(); ++i) {
          add(node->output(i), reached_[inner->outputs()[i]]);
        }
      }
    } else if (kind == prim::Loop) {
      loop(node);
    } else if (kind == prim::CallMethod) {
      call_unknown(node);
    } else if (node->hasAttribute(torch::jit::attr::Subgraph)) {
      forks |= kind == prim::fork;
      const auto graph = node->g(torch::jit::attr::Subgraph);
      for (size_t i = 0; i < node->inputs().size() && i < graph->inputs().size(); ++i) {
        add(graph->inputs()[i], reached_[node->input(i)]);
      }
      block(graph->block());
      for (const auto* inner : graph->outputs()) {
        for (const auto* output : node->outputs()) {
          add(output, within(reached_[inner]));
        }
      }
    } else {
      forks |= kind == prim::fork || kind == prim::forkClosure;
      if (kind == c10::Symbol::fromQualString("aten::seed")) {
        random.insert(kind.toQualString());
      }
      apply(node);
    }
  }

  void get(const Node* node) {
    const auto& type = node->output()->type();
    for (const auto& path : Names(reached_[node->input()].is)) {
      const auto name = joined(path, node->s(torch::jit::attr::name));
      add(node->output(), {{name}, holds_mutable(type) ? Names{name} : Names{}});
    }
  }

  void loop(const Node* node) {
    const auto* body = node->blocks().at(0);
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      add(body->inputs()[i + 1], reached_[node->input(i + 2)]);
    }
    block(body);
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      const Reach carried = reached_[body->outputs()[i + 1]];
      add(body->inputs()[i + 1], carried);
      add(node->output(i), carried);
      add(node->output(i), reached_[node->input(i + 2)]);
    }
  }

  // A method behind an interface: that of every module which has one of this name.
  void call_unknown(const Node* node) {
    std::vector<Reach> arguments;
    for (size_t i = 1; i < node->inputs().size(); ++i) {
      arguments.push_back(reached_[node->input(i)]);
    }
    const auto& method = node->s(torch::jit::attr::name);
    for (const auto& module : root_.named_modules()) {
      if (module.value._ivalue()->type()->findMethod(method) != nullptr) {
        const auto answer = call(module.name, method, arguments);
        for (const auto* output : node->outputs()) {
          add(output, answer);
        }
      }
    }
  }

  // An operator: what it writes, and which inputs its outputs may be, as its schema says.
  void apply(const Node* node) {
    const auto* schema = node->maybeSchema();
    const auto all = inputs_of(node);
    if (schema == nullptr || schema->is_vararg() || schema->arguments().size() != node->inputs().size()) {
      const std::string name = node->kind().toUnqualString();
      const bool constructs = name.find("Construct") != std::string::npos;
      const bool takes_out = name.find("Unpack") != std::string::npos || name == "TupleIndex";
      for (const auto* output : node->outputs()) {
        add(output, constructs ? within(all) : takes_out ? Reach{all.holds, all.holds} : all);
      }
      return;
    }
    const auto& arguments = schema->arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const auto* alias = arguments[i].alias_info();
      if (alias != nullptr && alias->isWrite()) {
        for (const auto& name : reached_[node->input(i)].is) {
          changed.emplace(name, node->kind().toQualString());
        }
        add(node->input(i), {{}, within(all).holds});
      }
    }
    const auto& returns = schema->returns();
    for (size_t j = 0; j < returns.size() && j < node->outputs().size(); ++j) {
      add(node->output(j), answer(node, *schema, returns[j], all));
    }
  }

  Reach answer(const Node* node, const c10::FunctionSchema& schema, const c10::Argument& returned, const Reach& all) {
    const auto* alias = returned.alias_info();
    if (alias == nullptr) {
      if (node->kind().is_prim()) {
        return all;
      }
      const auto waits = [](const Value* input) {
        return input->type()->kind() == c10::TypeKind::FutureType || input->type()->kind() == c10::TypeKind::AwaitType;
      };
      for (const auto* input : node->inputs()) {
        if (waits(input)) {
          return {all.holds, all.holds};
        }
      }
      // A new tensor, or a new list of what lay in another.
      return {{}, all.holds};
    }
    if (alias->isWildcardAfter()) {
      return {all.holds, all.holds};
    }
    Reach found{{}, within(all).holds};
    for (size_t i = 0; i < schema.arguments().size(); ++i) {
      const auto* own = schema.arguments()[i].alias_info();
      if (own == nullptr) {
        continue;
      }
      for (const auto& set : alias->beforeSets()) {
        if (own->beforeSets().count(set) != 0) {
          const auto& is = reached_[node->input(i)].is;
          found.is.insert(is.begin(), is.end());
        }
      }
    }
    return found;
  }

  const torch::jit::Module& root_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<Graph>> graphs_;
  std::set<const Graph*> active_;
  std::unordered_map<const Value*, Reach> reached_;
  bool grown_ = false;
};

bool is_state(const Slot& slot) {
  const auto& type = slot.object->type();
  if (!slot.value().isTensor() || type->getAttribute(slot.index)->kind() != c10::TypeKind::TensorType) {
    return false;
  }
  const bool frozen = type->is_parameter(slot.index) && !slot.value().toTensor().requires_grad();
  return type->is_buffer(slot.index) || frozen;
}

const void* memory_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

// Calls `see` with every tensor that lies in `value`.
void each_tensor(
    const c10::IValue& value,
    const std::string& path,
    std::set<const void*>& seen,
    const std::function<void(const std::string&, const at::Tensor&)>& see) {
  if (value.isTensor()) {
    see(path, value.toTensor());
  } else if (value.isObject()) {
    const auto object = value.toObject();
    if (seen.insert(object.get()).second) {
      for (size_t i = 0; i < object->type()->numAttributes(); ++i) {
        each_tensor(object->getSlot(i), joined(path, object->type()->getAttributeName(i)), seen, see);
      }
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      each_tensor(element, path, seen, see);
    }
  } else if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      each_tensor(element, path, seen, see);
    }
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      each_tensor(entry.key(), path, seen, see);
      each_tensor(entry.value(), path, seen, see);
    }
  }
}

// The name of another tensor in the memory of the one at `slot`.
std::optional<std::string> shares_memory(const torch::jit::Module& root, const Slot& slot) {
  const void* own = memory_of(slot.value().toTensor());
  std::optional<std::string> found;
  std::set<const void*> seen;
  each_tensor(root._ivalue(), "", seen, [&](const std::string& name, const at::Tensor& tensor) {
    if (own != nullptr && memory_of(tensor) == own && name != slot.name && !found) {
      found = name;
    }
  });
  return found;
}

} // namespace

} // namespace lockstep

extern "C" {

// Learns what `forward` may write. What no run can do exactly is pushed, by the attribute's name:
// `assigns`, `changes OPERATOR`, `parameter` (assigned), `constant OPERATOR` (in place), `shares OTHER` (a buffer that is
// assigned, with the memory of another tensor), `random OPERATOR`.
char* lte_script_examine(lte_script* script, lte_push_text sink_fn, void* sink) {
  return guard([&] {
    lockstep::Writes writes(script->module);
    writes.find();
    script->forks = writes.forks;
    script->assigned.clear();
    const auto tell = [&](const std::string& name, const std::string& what) {
      lockstep::push(sink_fn, sink, name, what);
    };
    std::set<std::pair<const void*, size_t>> known;
    for (const auto& name : writes.assigned) {
      const auto slot = lockstep::locate(script->module, name);
      if (!slot || !lockstep::is_state(*slot)) {
        const bool parameter = slot && slot->object->type()->is_parameter(slot->index);
        tell(name, parameter ? "parameter" : "assigns");
      } else if (const auto other = lockstep::shares_memory(script->module, *slot)) {
        tell(name, "shares " + *other);
      } else if (known.emplace(slot->object.get(), slot->index).second) {
        script->assigned.push_back(*slot);
      }
    }
    for (const auto& [name, kind] : writes.changed) {
      const auto slot = lockstep::locate(script->module, name);
      const auto type = slot ? slot->object->type() : nullptr;
      if (name == lockstep::constant_name) {
        tell(name, "constant " + kind);
      } else if (!type || !(type->is_buffer(slot->index) || type->is_parameter(slot->index))) {
        tell(name, "changes " + kind);
      }
    }
    for (const auto& kind : writes.random) {
      tell("", "random " + kind);
    }
  });
}

} // extern "C"
