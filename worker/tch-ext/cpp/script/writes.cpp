// Finds in the graphs which attributes `forward`, and all functions that it calls, may write to, before the module runs.
//
// Each value of a graph gets the set of attributes that it may be, and of attributes that may be in it (a list contains its elements).
// Passes over the graph are repeated until no set grows. Aliases that this analysis misses are found when the module runs, by
// `lte_script_attributes`.
#include "script.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <unordered_map>

#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/passes/inliner.h>

namespace lockstep::script::writes {

namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;
using Names = std::set<std::string>;

// Prefix of an attribute's name: the value is the attribute's memory without its version counter, as `.data` returns it.
const char past_counter = '\x01';

// The path of objects that `forward` itself creates.
const char* const made = "(made)";

const char* const differentiates_parameter =
    "computes the gradient of a parameter, which the training step computes: take the gradient of inputs or of activations instead";

const char* const switches_autocast =
    "TorchScript applies only with its own gradient formulas, which differ from those of PyTorch: set "
    "`numerics.autocast` in the job, convert types by `.to()`, or trace the module";

std::string own_name(const std::string& name) {
  return !name.empty() && name.front() == past_counter ? name.substr(1) : name;
}

struct Reach {
  Names is, holds;
};

class Writes {
 public:
  explicit Writes(const torch::jit::Module& root) : root_(root) {}

  void find() {
    walk::each_value(root_._ivalue(), "", [&](const std::string& path, const c10::IValue& value) {
      if (value.isObject()) {
        objects_.emplace_back(path, value.toObject());
      }
    });
    const auto& forward = root_._ivalue()->type()->getMethod("forward");
    const auto arguments = defaults(forward);
    do {
      grown_ = false;
      call("", forward, arguments);
    } while (grown_);
  }

  Found found;

 private:
  // The default values of arguments: they are part of the code, one object for all calls.
  std::vector<Reach> defaults(const torch::jit::Function& function) {
    std::vector<Reach> arguments;
    const auto& schema = function.getSchema();
    for (size_t i = 1; i < schema.arguments().size(); ++i) {
      const auto& argument = schema.arguments()[i];
      arguments.emplace_back();
      if (argument.default_value() && types::is_mutable(argument.type())) {
        found.constants.push_back(*argument.default_value());
        arguments.back() = {{constant_name}, types::holds_mutable(argument.type()) ? Names{constant_name} : Names{}};
      }
    }
    return arguments;
  }

  void merge(Names& into, const Names& from) {
    for (const auto& name : from) {
      grown_ |= into.insert(name).second;
    }
  }

  void add(const Value* value, const Reach& more) {
    if (types::is_mutable(value->type())) {
      auto& own = reached_[value];
      merge(own.is, more.is);
      // A tensor contains no other values.
      if (value->type()->kind() != c10::TypeKind::TensorType) {
        merge(own.holds, more.holds);
      }
    }
  }

  // The union of what all inputs may be or contain.
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

  // Analyses a method of the object at `path`, and returns what its result may be.
  Reach call(const std::string& path, const torch::jit::Function& function, const std::vector<Reach>& arguments) {
    return call(Reach{{path}, {}}, path, function, arguments);
  }

  Reach call(
      const Reach& self,
      const std::string& key,
      const torch::jit::Function& function,
      const std::vector<Reach>& arguments) {
    auto& graph = graphs_[{key, &function}];
    if (!graph) {
      graph = torch::jit::toGraphFunction(const_cast<torch::jit::Function&>(function)).graph()->copy();
      torch::jit::Inline(*graph);
    }
    Reach answer;
    if (!active_.insert(graph.get()).second) {
      return answer;
    }
    add(graph->inputs().at(0), self);
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
    look(node);
    if (kind == prim::GetAttr) {
      get(node);
    } else if (kind == prim::SetAttr) {
      set(node);
    } else if (kind == prim::Constant) {
      constant(node);
    } else if (kind == c10::Symbol::fromQualString("prim::data") || kind == c10::Symbol::fromQualString("aten::data")) {
      found.evades = true;
      Reach reach = reached_[node->input()];
      for (const auto& name : Names(reach.is)) {
        reach.is.insert(past_counter + own_name(name));
      }
      add(node->output(), reach);
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
      found.forks |= kind == prim::fork;
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
      found.forks |= kind == prim::fork || kind == prim::forkClosure;
      apply(node);
    }
  }

  void look(const Node* node) {
    bool attributes = false;
    if (!node->inputs().empty()) {
      const auto& first = reached_[node->input(0)];
      attributes = !first.is.empty() || !first.holds.empty();
    }
    const std::string name = node->kind().toQualString();
    if (const char* why = denied::why(node, attributes)) {
      found.denied.emplace(name, why);
    }
    if (name == "aten::grad" && differentiates(node)) {
      found.denied.emplace(name, differentiates_parameter);
    }
    found.empty |= denied::may_leave_unwritten(name);
    found.evades |= denied::may_hide_alias(name);
    if (denied::reaches_by_strides(name)) {
      found.strides = name;
    }
    if (denied::enters_autocast(node)) {
      found.denied.emplace("torch.autocast", switches_autocast);
    }
  }

  bool differentiates(const Node* node) {
    for (const auto& name : within(reached_[node->input(1)]).holds) {
      const auto slot = walk::locate(root_, own_name(name));
      if (slot && is_parameter(slot->object->type(), slot->index)) {
        return true;
      }
    }
    return false;
  }

  void constant(const Node* node) {
    const auto value = torch::jit::toIValue(node->output());
    if (!value || !types::is_mutable(node->output()->type()) || types::is_generator(node->output()->type())) {
      return;
    }
    if (known_.insert(node).second) {
      found.constants.push_back(*value);
    }
    const bool holds = types::holds_mutable(node->output()->type());
    add(node->output(), {{constant_name}, holds ? Names{constant_name} : Names{}});
  }

  void get(const Node* node) {
    const auto& type = node->output()->type();
    const Reach object = reached_[node->input()];
    for (const auto& path : object.is) {
      const auto name = joined(path, node->s(torch::jit::attr::name));
      add(node->output(), {{name}, types::holds_mutable(type) ? Names{name} : Names{}});
      add(node->output(), Reach(stored_[name]));
    }
    // An object that `forward` itself created returns the values that were put into it.
    Names put;
    std::set_difference(
        object.holds.begin(), object.holds.end(), object.is.begin(), object.is.end(), std::inserter(put, put.end()));
    add(node->output(), {put, put});
  }

  void set(const Node* node) {
    const Reach object = reached_[node->input(0)], value = reached_[node->input(1)];
    for (const auto& path : object.is) {
      const auto name = joined(path, node->s(torch::jit::attr::name));
      grown_ |= found.assigned.insert(name).second;
      merge(stored_[name].is, value.is);
      merge(stored_[name].holds, value.holds);
    }
    if (object.is.empty()) {
      add(node->input(0), within(value));
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

  // A method that is called through an interface: analyses the methods of this name of all objects, and of all classes, because `forward`
  // may create an object of any class.
  void call_unknown(const Node* node) {
    std::vector<Reach> arguments;
    for (size_t i = 1; i < node->inputs().size(); ++i) {
      arguments.push_back(reached_[node->input(i)]);
    }
    const auto& method = node->s(torch::jit::attr::name);
    const auto answered = [&](const Reach& answer) {
      for (const auto* output : node->outputs()) {
        add(output, answer);
      }
    };
    for (const auto& [path, object] : objects_) {
      const auto* function = object->type()->findMethod(method);
      if (function != nullptr && function->isGraphFunction()) {
        answered(call(path, *function, arguments));
      }
    }
    const auto type = node->input(0)->type()->cast<c10::ClassType>();
    if (type && type->name() && begins(type->name()->qualifiedName(), "__torch__.torch.classes.")) {
      // An object of a class of libtorch may return its own memory.
      answered({reached_[node->input(0)].holds, {}});
    }
    for (auto* function : root_._ivalue()->compilation_unit()->get_functions()) {
      if (function->name() == method && is_method_of_plain_class(*function)) {
        const Reach self{{}, within(reached_[node->input(0)]).holds};
        answered(call(self, made, *function, arguments));
      }
    }
  }

  static bool is_method_of_plain_class(torch::jit::Function& function) {
    if (!function.isGraphFunction()) {
      return false;
    }
    const auto inputs = torch::jit::toGraphFunction(function).graph()->inputs();
    const auto self = inputs.empty() ? nullptr : inputs[0]->type()->cast<c10::ClassType>();
    return self && !self->is_module();
  }

  // An operator: its writes, and the inputs that its outputs may be, according to its schema.
  void apply(const Node* node) {
    const auto* schema = node->maybeSchema();
    const auto all = inputs_of(node);
    const bool told = schema != nullptr && !schema->is_vararg() && schema->arguments().size() == node->inputs().size() &&
        schema->returns().size() == node->outputs().size();
    if (!told) {
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
        // The elements of the list are written, as by the `_foreach` operators.
        const bool elements = !alias->containedTypes().empty();
        write(elements ? within(reached_[node->input(i)]).holds : reached_[node->input(i)].is, node);
        add(node->input(i), {{}, within(all).holds});
      }
    }
    for (const auto i : unsaid::written(node, *schema)) {
      const auto names = reached_[node->input(i)].is;
      found.evades |= names.empty();
      for (const auto& name : names) {
        write({own_name(name), past_counter + own_name(name)}, node);
      }
    }
    const auto& returns = schema->returns();
    for (size_t j = 0; j < returns.size(); ++j) {
      add(node->output(j), answer(node, *schema, returns[j], all));
    }
  }

  void write(const Names& names, const Node* node) {
    for (const auto& name : names) {
      const auto operation = node->kind().toQualString();
      if (own_name(name) != name) {
        found.uncounted.emplace(own_name(name), operation);
      } else {
        found.changed.emplace(name, operation);
      }
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
      // Packed weights return their own memory.
      const std::string name = node->kind().toQualString();
      if (begins(name, "quantized::") && name.find("unpack") != std::string::npos) {
        return {all.holds, all.holds};
      }
      // A new tensor, or a new list with elements of another one.
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
  std::vector<std::pair<std::string, torch::jit::ObjectPtr>> objects_;
  std::map<std::pair<std::string, const torch::jit::Function*>, std::shared_ptr<Graph>> graphs_;
  // What was assigned to each attribute.
  std::map<std::string, Reach> stored_;
  std::unordered_set<const Node*> known_;
  std::set<const Graph*> active_;
  std::unordered_map<const Value*, Reach> reached_;
  bool grown_ = false;
};

} // namespace

Found find(const torch::jit::Module& root) {
  Writes writes(root);
  writes.find();
  return std::move(writes.found);
}

} // namespace lockstep::script::writes
