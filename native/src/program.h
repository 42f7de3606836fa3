// A circuit as flat arrays, checked once, and run whole: its operations in waves, its values in one arena.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "constants.h"
#include "memory.h"
#include "operation.h"
#include "pool.h"

namespace heinfer {

/// What another thread may know and do of a run.
struct Control {
    std::atomic<std::size_t> done{0};  ///< operations that are finished
    std::atomic<bool> cancelled{false};
};

/// The operations of the arrays: each is its `Code`, its wave and the first row of its scratch, followed by
///   sum: out, factors, addends, plains, scalar, kept; (value, constant)..., value..., constant...
///   rotate: input, exact, targets; (step, out, after or -1)...
///   multiply, multiply_relinearize: out, x, y
///   relinearize, divide, divide_twice, extend: out, input
class Program {
  public:
    /// `values`: offset, rows, polynomials, extended for each value. std::invalid_argument for arrays that are no
    /// program, or would leave the arena.
    Program(std::shared_ptr<const Ring> ring, const std::vector<std::int64_t>& values,
            const std::vector<std::int64_t>& code, std::vector<std::size_t> inputs, std::vector<std::size_t> outputs,
            std::size_t arena_rows);

    /// Those that the code names by their numbers; to be loaded before a run.
    Constants& constants() { return constants_; }
    const Constants& constants() const { return constants_; }

    /// Runs on input rows (pointers to the rows of each polynomial of each input); false when it was cancelled.
    /// One run at a time: others wait. std::invalid_argument when a key is missing.
    bool run(const std::vector<const Word*>& inputs, const Keys& keys, std::size_t threads, Control& control,
             const std::vector<Word*>& outputs);

    const Ring& ring() const { return *ring_; }
    const std::vector<std::size_t>& inputs() const { return inputs_; }
    const std::vector<std::size_t>& outputs() const { return outputs_; }
    const Value& value(std::size_t number) const { return values_[number]; }
    std::size_t operations() const { return operations_.size(); }
    std::size_t constant_bytes() const { return constants_.kept_words() * sizeof(Word); }
    /// Of the arena and every thread's own rows.
    std::size_t run_bytes(std::size_t threads) const;

  private:
    class Reader;
    void read(const std::vector<std::int64_t>& code);
    std::unique_ptr<Operation> read_sum(Reader& reader, std::size_t scratch);
    std::unique_ptr<Operation> read_rotations(Reader& reader, std::size_t scratch);
    void require_keys(const Keys& keys) const;
    void perform(const Run& run, std::size_t first, std::size_t last, Pool& pool) const;

    std::shared_ptr<const Ring> ring_;
    std::vector<Value> values_;
    std::vector<std::size_t> inputs_, outputs_;
    std::size_t arena_rows_, thread_rows_ = 0;
    std::vector<std::unique_ptr<Operation>> operations_;
    std::vector<std::size_t> wave_ends_;
    Constants constants_;

    std::mutex running_;
    std::unique_ptr<Pool> pool_;
    Rows arena_;
};

}  // namespace heinfer
