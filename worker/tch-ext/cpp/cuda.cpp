// Loads libtorch's CUDA libraries, and forwards calls to the code that uses them. Loading them takes longer than everything else that a
// process does before it trains, so on a machine without a driver they are not loaded.
#include "cuda.h"
#include "cuda/half.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ATen/Version.h>

#ifdef LOCKSTEP_CUDA

extern "C" {
// The compiled library of `cuda/`, embedded in this program.
extern const char lockstep_cuda_image[];
extern const char lockstep_cuda_image_end[];
}

namespace lockstep::cuda {

namespace {

// Whether this machine has a driver. CUDA's runtime looks for the same file.
bool has_driver() {
  static const bool found = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr;
  return found;
}

void* load(const char* library) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
  TORCH_CHECK(handle != nullptr, "cannot load libtorch's CUDA libraries: ", dlerror());
  return handle;
}

// The directory of libtorch's libraries.
std::string torch_folder() {
  Dl_info found{};
  dladdr(reinterpret_cast<const void*>(&at::show_config), &found);
  const std::string path = found.dli_fname != nullptr ? found.dli_fname : "";
  return path.substr(0, path.rfind('/') + 1);
}

// Runs before `main`, because libtorch looks for its CUDA libraries once, at its first use of any device. Errors are ignored here; they are
// reported when a device is used.
__attribute__((constructor)) void load_where_a_driver_is() {
  if (has_driver()) {
    // By its full path: the loader searches relative to the caller, which here is the loader itself.
    dlopen((torch_folder() + "libtorch_cuda.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
}

// The loader accepts only files, so the image is written to a memory file.
const Half& load_half() {
  const auto size = static_cast<size_t>(lockstep_cuda_image_end - lockstep_cuda_image);
  const int file = memfd_create("lockstep-cuda", MFD_CLOEXEC);
  TORCH_CHECK(file >= 0, "cannot create a memory file for the CUDA part of this program");
  for (size_t done = 0; done < size;) {
    const auto wrote = write(file, lockstep_cuda_image + done, size - done);
    TORCH_CHECK(wrote > 0, "cannot write the CUDA part of this program to memory");
    done += static_cast<size_t>(wrote);
  }
  void* handle = load(("/proc/self/fd/" + std::to_string(file)).c_str());
  close(file);
  const auto* half = static_cast<const Half*>(dlsym(handle, "lockstep_cuda_half"));
  TORCH_CHECK(half != nullptr, "the CUDA part of this program is from another build: rebuild the program");
  return *half;
}

const Half& half() {
  static const Half& half = load_half();
  return half;
}

} // namespace

void describe(const std::function<void(std::string_view, std::string_view)>& put) {
  if (has_driver()) {
    half().describe(put);
  }
}

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    int device,
    std::chrono::milliseconds timeout) {
  return half().make_nccl(store, rank, size, device, timeout);
}

} // namespace lockstep::cuda

#else

namespace lockstep::cuda {

void describe(const std::function<void(std::string_view, std::string_view)>&) {}

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>&, int, int, int, std::chrono::milliseconds) {
  TORCH_CHECK(false, "this libtorch was built without CUDA, so it has no NCCL");
}

} // namespace lockstep::cuda

#endif
