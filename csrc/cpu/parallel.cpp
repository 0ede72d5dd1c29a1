// Threads come from the OpenMP run-time that torch has already loaded: a second
// pool of our own would compete with torch's workers, which spin for a while after each of torch's
// own loops. Where the process has none, plain threads are started for the call.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

// libgomp's entry point for a parallel region; LLVM's and Intel's run-times export it as well. Weak:
// null where the process had no OpenMP run-time when this module was loaded. (dlsym would do the
// same, but a glibc from 2.34 on lets nobody link it who is to run on an older one.)
extern "C" __attribute__((weak)) void GOMP_parallel(void (*work)(void*), void* context,
                                                    unsigned threads, unsigned flags);

namespace hvdfilter {
namespace {

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
  Loop loop{run, context, tasks};
  if (GOMP_parallel != nullptr) {
    GOMP_parallel(&Loop::work, &loop, static_cast<unsigned>(threads), 0);
    return;
  }
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; i++) helpers.emplace_back(&Loop::work, &loop);
  Loop::work(&loop);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace hvdfilter
