#include "pool.h"

namespace heinfer {

namespace {

constexpr int patience = 4000;  // looks before a thread sleeps: phases are tens of microseconds apart

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

Pool::Pool(std::size_t threads) {
    try {
        for (std::size_t thread = 1; thread < threads; ++thread) {
            workers_.emplace_back([this, thread] { work(thread); });
        }
    } catch (...) {  // the system gives no more threads: those there are must end before this does
        stop();
        throw;
    }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
    stopping_ = true;
    ++round_;
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
}

// A worker that the system has not let run yet is not waited for: it finds the job closed. One that another process has
// been given the processor of is waited for asleep, so that the system can move it to the processor that is free then.
void Pool::share(const Job& job) {
    job_ = job;
    next_.store(0, std::memory_order_relaxed);
    open_.store(true);
    round_.fetch_add(1);
    round_.notify_all();
    take_tasks(0);
    open_.store(false);
    std::size_t inside = inside_.load();
    for (int looks = 0; inside; inside = inside_.load(), ++looks) {
        if (looks < patience) {
            relax();
        } else {
            inside_.wait(inside);
        }
    }
}

void Pool::take_tasks(std::size_t thread) {
    for (;;) {
        const std::size_t task = next_.fetch_add(1, std::memory_order_relaxed);
        if (task >= job_.tasks) return;
        job_.call(job_.of, task, thread);
    }
}

void Pool::work(std::size_t thread) {
    std::size_t seen = 0;
    for (;;) {
        for (int looks = 0; round_.load(std::memory_order_acquire) == seen; ++looks) {
            if (looks < patience) {
                relax();
            } else {
                round_.wait(seen, std::memory_order_acquire);
            }
        }
        seen = round_.load(std::memory_order_acquire);
        if (stopping_) return;
        inside_.fetch_add(1);
        if (open_.load()) take_tasks(thread);
        if (inside_.fetch_sub(1) == 1) inside_.notify_one();
    }
}

}  // namespace heinfer
