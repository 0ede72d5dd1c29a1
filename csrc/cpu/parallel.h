// Runs a loop of independent tasks on several threads. Which thread runs which task is left open,
// so a task must write only its own results: then no bit depends on the number of threads.
#pragma once

#include <cstdint>

namespace hvdfilter {

using Task = void (*)(void* context, int64_t task);

// Calls run(context, i) for every i in [0, tasks) on at most `threads` threads, the caller's
// included, and returns when all are done. Tasks are handed out one by one, in order.
void run_tasks(int64_t tasks, int threads, Task run, void* context);

template <class F>
void parallel_for(int64_t tasks, int threads, F&& body) {
  run_tasks(
      tasks, threads, [](void* context, int64_t i) { (*static_cast<F*>(context))(i); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace hvdfilter
