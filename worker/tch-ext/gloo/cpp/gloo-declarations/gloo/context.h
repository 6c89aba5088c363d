// The names of gloo that c10d's header mentions and the cut calls. libtorch carries gloo's code without its headers;
// nothing of ours makes an object of these classes or relies on their layout, only on the names of their functions.
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
