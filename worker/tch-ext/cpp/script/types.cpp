// Properties of the values of a TorchScript type.
#include "script.h"

namespace lockstep::script::types {

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

bool has_address(const c10::TypePtr& type, bool tensors) {
  switch (type->kind()) {
    case c10::TypeKind::ClassType:
    case c10::TypeKind::InterfaceType:
    case c10::TypeKind::AnyType:
    case c10::TypeKind::AnyClassType:
    case c10::TypeKind::GeneratorType:
    case c10::TypeKind::FutureType:
    case c10::TypeKind::CapsuleType:
    case c10::TypeKind::DeviceObjType:
      return true;
    case c10::TypeKind::TensorType:
      return tensors;
    default:
      for (const auto& inner : type->containedTypes()) {
        if (has_address(inner, tensors)) {
          return true;
        }
      }
      return false;
  }
}

bool is_generator(const c10::TypePtr& type) {
  if (type->kind() == c10::TypeKind::GeneratorType) {
    return true;
  }
  if (type->kind() == c10::TypeKind::ClassType) {
    // Its attributes are checked separately.
    return false;
  }
  for (const auto& inner : type->containedTypes()) {
    if (is_generator(inner)) {
      return true;
    }
  }
  return false;
}

} // namespace lockstep::script::types
