// The operations of a program: what each does in phases, and the tasks of a phase that may run side by side.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "constants.h"
#include "keys.h"
#include "ring.h"

namespace heinfer {

/// Where a value lies in the arena: `polynomials` times `rows` rows. An extended value's last row is modulo the
/// special prime.
struct Value {
    std::size_t offset;
    std::size_t rows;
    std::size_t polynomials;
    bool extended;
};

/// Words from one row of the arena to the next: rows that are powers of two apart would share few sets of a cache.
inline std::size_t row_stride(std::size_t n) { return n + tile_words; }

/// Numbers of operations in a program's arrays.
enum class Code : std::int64_t {
    sum = 0,
    rotate = 1,
    multiply = 2,
    relinearize = 3,
    multiply_relinearize = 4,
    divide = 5,
    divide_twice = 6,
    extend = 7,
};

/// Rows that an operation needs besides those of its values: in the arena, and for every thread.
struct Needs {
    std::size_t scratch = 0, thread = 0;
};

/// Constants of a sum whose rows are made together, in every run, before they are multiplied by: half of a cache of 1 MB.
inline constexpr std::size_t made_together = 8;

/// Needs of a sum with `count` constants.
Needs needs_of_sum(Kept kept, std::size_t count);

/// Needs of another operation with `rows` and `polynomials` of its output (of its input, for rotations) and `count`
/// targets. std::invalid_argument for a number that is no operation's.
Needs needs_of(Code code, std::size_t rows, std::size_t polynomials, std::size_t count);

/// What a run has.
struct Run {
    const Ring& ring;
    const Keys& keys;
    Word* arena;
    std::size_t thread_rows_start, thread_rows;  ///< where those of the threads begin, and how many each has

    Word* row(std::size_t number) const { return arena + row_stride(ring.n()) * number; }
    Word* row(const Value& value, std::size_t polynomial, std::size_t row) const {
        return this->row(value.offset + polynomial * value.rows + row);
    }
    Word* own_row(std::size_t thread, std::size_t number) const {
        return row(thread_rows_start + thread * thread_rows + number);
    }
    /// Index of the prime that a row of a value is modulo.
    std::size_t prime(const Value& value, std::size_t row) const {
        return value.extended && row + 1 == value.rows ? ring.special() : row;
    }
};

class Operation {
  public:
    virtual ~Operation() = default;
    virtual std::size_t phases() const = 0;
    virtual std::size_t tasks(std::size_t phase) const = 0;
    virtual void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const = 0;
    virtual Needs needs() const { return {}; }
    /// Steps of keys that it uses, each with the number of data primes.
    virtual std::vector<std::array<std::size_t, 2>> keys() const { return {}; }
};

/// out = sum of values times constants, of values and of constants: a block's, first those of the factors.
struct SumOf {
    Value out;
    std::vector<Value> factors, addends;
    std::size_t plains;
    std::size_t block;
    std::size_t scratch;  ///< for a block that is kept as slots
};
std::unique_ptr<Operation> make_sum(const SumOf& sum, const Constants& constants, bool scalar, std::size_t n);

struct Target {
    std::size_t step;
    Value out;
    bool has_after;
    Value after;  ///< added to what is rotated
};
/// Rotations of one input that share its digits. `exact`: the digits of the rotated polynomial, as SEAL takes them,
/// which only a rotation alone can have. Extended outputs are not divided by the special prime.
std::unique_ptr<Operation> make_rotations(const Value& input, const std::vector<Target>& targets, bool exact,
                                          std::size_t scratch);
std::unique_ptr<Operation> make_relinearization(const Value& out, const Value& input, std::size_t scratch);
/// out = relinearized x * y.
std::unique_ptr<Operation> make_relinearized_product(const Value& out, const Value& x, const Value& y,
                                                     std::size_t scratch);
std::unique_ptr<Operation> make_product(const Value& out, const Value& x, const Value& y);
/// Divides by the last prime; the special one of an extended value.
std::unique_ptr<Operation> make_division(const Value& out, const Value& input, std::size_t scratch);
/// Divides an extended value by the special prime and then by the last data prime, each rounded.
std::unique_ptr<Operation> make_double_division(const Value& out, const Value& input, std::size_t scratch);
/// out = input times the special prime, extended.
std::unique_ptr<Operation> make_extension(const Value& out, const Value& input);

}  // namespace heinfer
