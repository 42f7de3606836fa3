// Threads that work off the tasks of a phase together and wait for each other.
#pragma once
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace heinfer {

class Pool {
  public:
    explicit Pool(std::size_t threads);  ///< std::system_error when the system gives no more threads
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    std::size_t threads() const { return workers_.size() + 1; }

    /// Calls f(task, thread) for every task below `tasks`; returns when all are done. f must not throw.
    template <class F>
    void run(std::size_t tasks, const F& f) {
        if (workers_.empty() || tasks < 2) {
            for (std::size_t task = 0; task < tasks; ++task) f(task, 0);
            return;
        }
        share({tasks, &f, [](const void* of, std::size_t task, std::size_t thread) {
                   (*static_cast<const F*>(of))(task, thread);
               }});
    }

  private:
    struct Job {
        std::size_t tasks = 0;
        const void* of = nullptr;
        void (*call)(const void*, std::size_t, std::size_t) = nullptr;
    };

    void share(const Job& job);
    void take_tasks(std::size_t thread);
    void work(std::size_t thread);
    void stop();

    std::vector<std::thread> workers_;
    Job job_;
    alignas(64) std::atomic<std::size_t> next_{0};
    alignas(64) std::atomic<std::size_t> inside_{0};  ///< workers that may look at the job
    alignas(64) std::atomic<std::size_t> round_{0};
    std::atomic<bool> open_{false}, stopping_{false};
};

}  // namespace heinfer
