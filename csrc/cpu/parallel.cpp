// Threads come from the OpenMP run-time that torch has already loaded, found by name: a second
// pool of our own would compete with torch's workers, which spin for a while after each of torch's
// own loops. Where the process has none, plain threads are started for the call.
#include "parallel.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace hvdfilter {
namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// libgomp's entry point for a parallel region; LLVM's and Intel's run-times export it as well.
GompParallel find_openmp() {
  return reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
}

struct Loop {
  Task run;
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};

  static void work(void* self) {
    Loop& loop = *static_cast<Loop*>(self);
    for (int64_t i = loop.next++; i < loop.tasks; i = loop.next++) loop.run(loop.context, i);
  }
};

}  // namespace

void run_tasks(int64_t tasks, int threads, Task run, void* context) {
  threads = static_cast<int>(std::min<int64_t>(threads, tasks));
  if (threads <= 1) {
    for (int64_t i = 0; i < tasks; i++) run(context, i);
    return;
  }
  static const GompParallel openmp = find_openmp();
  Loop loop{run, context, tasks};
  if (openmp != nullptr) {
    openmp(&Loop::work, &loop, static_cast<unsigned>(threads), 0);
    return;
  }
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; i++) helpers.emplace_back(&Loop::work, &loop);
  Loop::work(&loop);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace hvdfilter
