// The names of gloo that c10d's header and the cut use. libtorch contains gloo's code without its headers. The shim creates no object of
// these classes and does not depend on their layout, only on the names of their functions.
#pragma once

#include <chrono>
#include <memory>

namespace gloo {

namespace transport {
class Pair;
class UnboundBuffer;
} // namespace transport

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  // The connection to rank `i`; empty for the own rank.
  std::unique_ptr<transport::Pair>& getPair(int i);
};

} // namespace gloo
