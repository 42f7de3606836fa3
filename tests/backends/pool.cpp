// Phases of tasks on a pool: each task once, none before the phase before it has ended. Prints what went wrong.
#include "pool.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int, char** arguments) {
    const std::size_t threads = std::strtoul(arguments[1], nullptr, 10), phases = std::strtoul(arguments[2], nullptr, 10);
    const long work = std::strtol(arguments[3], nullptr, 10);
    heinfer::Pool pool(threads);
    for (std::size_t run = 0; run < 20; ++run) {
        // Neither is atomic: tasks and what lies between phases are ordered by the pool alone.
        std::vector<std::size_t> before(64, 0), after(64, 0);
        for (std::size_t phase = 1; phase <= phases; ++phase) {
            const std::size_t tasks = 1 + (run + 7 * phase) % 64;
            pool.run(tasks, [&](std::size_t task, std::size_t thread) {
                if (thread >= threads || task >= tasks) std::printf("run %zu: no such task or thread\n", run);
                volatile long left = work;
                while (left > 0) left = left - 1;
                if (after[task] == phase) std::printf("run %zu: task %zu of %zu was run twice\n", run, task, phase);
                after[task] = phase;
                if (before[(task + 1) % 64] == phase) std::printf("run %zu: phases overlap\n", run);
            });
            for (std::size_t task = 0; task < tasks; ++task) {
                if (after[task] != phase) std::printf("run %zu: task %zu of %zu was not run\n", run, task, phase);
            }
            before = after;
        }
        std::atomic<std::size_t> sum{0};
        pool.run(100, [&](std::size_t task, std::size_t) { sum += task; });
        pool.run(0, [&](std::size_t, std::size_t) { sum = 0; });
        if (sum != 4950) std::printf("run %zu: the tasks of one phase add up to %zu\n", run, sum.load());
    }
    std::puts("done");
}
