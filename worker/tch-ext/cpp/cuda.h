// What can be said about CUDA, cuDNN, NCCL and the devices; empty where there is no driver.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace lockstep {

void describe_cuda(const std::function<void(std::string_view, std::string_view)>& put);

} // namespace lockstep
