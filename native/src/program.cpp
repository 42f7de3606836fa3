#include "program.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

namespace heinfer {

namespace {

[[noreturn]] void refuse(const char* what) { throw std::invalid_argument(what); }

void require(bool condition, const char* what) {
    if (!condition) refuse(what);
}

bool same_shape(const Value& x, const Value& y) {
    return x.rows == y.rows && x.polynomials == y.polynomials && x.extended == y.extended;
}

constexpr std::size_t most_rows = std::size_t{1} << 32;

}  // namespace

/// Takes numbers from the code; every one is checked for what it stands for.
class Program::Reader {
  public:
    Reader(const std::vector<std::int64_t>& code, const std::vector<Value>& values) : code_(code), values_(values) {}

    bool more() const { return at_ < code_.size(); }
    std::int64_t number() {
        require(more(), "the code ends within an operation");
        return code_[at_++];
    }
    std::size_t count() {
        const std::int64_t found = number();
        require(found >= 0 && static_cast<std::uint64_t>(found) < most_rows, "a count in the code is out of range");
        return static_cast<std::size_t>(found);
    }
    /// A number of things that the code still has to list.
    std::size_t length() {
        const std::size_t found = count();
        require(found <= code_.size() - at_, "the code ends within an operation");
        return found;
    }
    const Value& value() {
        const std::size_t found = count();
        require(found < values_.size(), "the code names a value that there is not");
        return values_[found];
    }

  private:
    const std::vector<std::int64_t>& code_;
    const std::vector<Value>& values_;
    std::size_t at_ = 0;
};

Program::Program(std::shared_ptr<const Ring> ring, const std::vector<std::int64_t>& values,
                 const std::vector<std::int64_t>& code, std::vector<std::size_t> inputs,
                 std::vector<std::size_t> outputs, std::size_t arena_rows)
    : ring_(std::move(ring)), inputs_(std::move(inputs)), outputs_(std::move(outputs)), arena_rows_(arena_rows),
      constants_(ring_) {
    require(values.size() % 4 == 0 && arena_rows < most_rows, "the values are not four numbers each");
    for (std::size_t i = 0; i < values.size(); i += 4) {
        const bool extended = values[i + 3] != 0;
        for (std::size_t k = 0; k < 3; ++k) {
            require(values[i + k] >= 0 && static_cast<std::uint64_t>(values[i + k]) < most_rows, "a value is out of range");
        }
        const Value value{static_cast<std::size_t>(values[i]), static_cast<std::size_t>(values[i + 1]),
                          static_cast<std::size_t>(values[i + 2]), extended};
        require(value.rows >= (extended ? 2u : 1u) && value.rows <= ring_->data_primes() + (extended ? 1 : 0) &&
                    (value.polynomials == 2 || (value.polynomials == 3 && !extended)) &&
                    value.offset + value.rows * value.polynomials <= arena_rows,
                "a value does not fit the ring or the arena");
        values_.push_back(value);
    }
    for (const auto* numbers : {&inputs_, &outputs_}) {
        for (const std::size_t number : *numbers) {
            require(number < values_.size() && !values_[number].extended, "an input or output is no value");
        }
    }
    for (const std::size_t number : inputs_) require(values_[number].polynomials == 2, "an input has two polynomials");
    read(code);
}

void Program::read(const std::vector<std::int64_t>& code) {
    Reader reader(code, values_);
    std::size_t wave = 0;
    while (reader.more()) {
        const auto kind = static_cast<Code>(reader.number());
        const std::size_t in_wave = reader.count(), scratch = reader.count();
        require(operations_.empty() ? in_wave == 0 : in_wave == wave || in_wave == wave + 1, "waves are out of order");
        if (!operations_.empty() && in_wave != wave) wave_ends_.push_back(operations_.size());
        wave = in_wave;
        std::unique_ptr<Operation> operation;
        switch (kind) {
            case Code::sum:
                operation = read_sum(reader, scratch);
                break;
            case Code::rotate:
                operation = read_rotations(reader, scratch);
                break;
            case Code::multiply:
            case Code::multiply_relinearize: {
                const Value &out = reader.value(), &x = reader.value(), &y = reader.value();
                const std::size_t polynomials = kind == Code::multiply ? 3 : 2;
                require(same_shape(x, y) && x.polynomials == 2 && !x.extended && !out.extended && out.rows == x.rows &&
                            out.polynomials == polynomials,
                        "a product does not fit its factors");
                operation = kind == Code::multiply ? make_product(out, x, y)
                                                   : make_relinearized_product(out, x, y, scratch);
                break;
            }
            case Code::relinearize: {
                const Value &out = reader.value(), &input = reader.value();
                require(input.polynomials == 3 && out.polynomials == 2 && !out.extended && out.rows == input.rows,
                        "a relinearization does not fit its input");
                operation = make_relinearization(out, input, scratch);
                break;
            }
            case Code::divide: {
                const Value &out = reader.value(), &input = reader.value();
                require(!out.extended && out.rows + 1 == input.rows && out.polynomials == input.polynomials,
                        "a division does not fit its input");
                operation = make_division(out, input, scratch);
                break;
            }
            case Code::divide_twice: {
                const Value &out = reader.value(), &input = reader.value();
                require(!out.extended && input.extended && out.rows + 2 == input.rows && out.polynomials == 2,
                        "a double division does not fit its input");
                operation = make_double_division(out, input, scratch);
                break;
            }
            case Code::extend: {
                const Value &out = reader.value(), &input = reader.value();
                require(out.extended && !input.extended && input.rows + 1 == out.rows && input.polynomials == 2,
                        "an extension does not fit its input");
                operation = make_extension(out, input);
                break;
            }
            default:
                refuse("the code has an unknown operation");
        }
        const Needs needs = operation->needs();
        require(scratch + needs.scratch <= arena_rows_, "scratch does not fit the arena");
        thread_rows_ = std::max(thread_rows_, needs.thread);
        operations_.push_back(std::move(operation));
    }
    if (!operations_.empty()) wave_ends_.push_back(operations_.size());
}

std::unique_ptr<Operation> Program::read_sum(Reader& reader, std::size_t scratch) {
    SumOf sum{reader.value(), {}, {}, 0, 0, scratch};
    const std::size_t factors = reader.length(), addends = reader.length();
    sum.plains = reader.length();
    const bool scalar = reader.count() != 0;
    const auto kept = static_cast<Kept>(reader.count());
    std::vector<std::size_t> constants;
    std::size_t polynomials = 0;
    const auto operand = [&]() -> const Value& {
        const Value& value = reader.value();
        require(value.extended == sum.out.extended &&
                    (value.extended ? value.rows == sum.out.rows : value.rows >= sum.out.rows) &&
                    value.polynomials <= sum.out.polynomials,
                "a sum does not fit its operands");
        polynomials = std::max(polynomials, value.polynomials);
        return value;
    };
    for (std::size_t k = 0; k < factors; ++k) {
        sum.factors.push_back(operand());
        require(k == 0 || sum.factors[k].polynomials <= sum.factors[k - 1].polynomials, "a sum's factors are out of order");
        constants.push_back(reader.count());
    }
    for (std::size_t k = 0; k < addends; ++k) sum.addends.push_back(operand());
    for (std::size_t k = 0; k < sum.plains; ++k) constants.push_back(reader.count());
    require(polynomials == sum.out.polynomials, "a sum has another size than its operands");
    sum.block = constants_.add(std::move(constants), sum.out.rows, sum.out.extended, scalar, kept);
    return make_sum(sum, constants_, scalar, ring_->n());
}

std::unique_ptr<Operation> Program::read_rotations(Reader& reader, std::size_t scratch) {
    const Value& input = reader.value();
    const bool exact = reader.count() != 0;
    const std::size_t count = reader.length();
    require(count > 0 && input.polynomials == 2 && !input.extended, "a rotation does not fit its input");
    std::vector<Target> targets;
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t step = reader.count();
        const Value& out = reader.value();
        const std::int64_t after = reader.number();
        require(step > 0 && step < ring_->n() / 2 && out.polynomials == 2 && out.extended == (targets.empty() ? out : targets[0].out).extended &&
                    out.rows == input.rows + (out.extended ? 1 : 0),
                "a rotation does not fit its input");
        require(after >= -1 && after < static_cast<std::int64_t>(values_.size()) && (after < 0 || !out.extended),
                "a rotation is added to no value");
        targets.push_back({step, out, after >= 0, after >= 0 ? values_[static_cast<std::size_t>(after)] : out});
        require(same_shape(targets.back().after, out), "a rotation is added to a value of another shape");
    }
    return make_rotations(input, targets, exact, scratch);
}

void Program::require_keys(const Keys& keys) const {
    require(&keys.ring() == ring_.get(), "the keys are of another ring");
    for (const auto& operation : operations_) {
        for (const auto& [step, rows] : operation->keys()) {
            require(keys.find(step, rows) != nullptr, "a key that the program needs is missing");
        }
    }
}

bool Program::run(const std::vector<const Word*>& inputs, const Keys& keys, std::size_t threads, Control& control,
                  const std::vector<Word*>& outputs) {
    const std::lock_guard lock(running_);
    require(constants_.loaded(), "the constants are not loaded");
    require(inputs.size() == 2 * inputs_.size() && outputs.size() == outputs_.size(), "inputs or outputs are missing");
    require_keys(keys);
    const std::size_t bytes = run_bytes(threads), words = bytes / sizeof(Word), row_bytes = ring_->n() * sizeof(Word);
    if (!pool_ || pool_->threads() != threads) pool_ = std::make_unique<Pool>(threads);
    if (arena_.bytes() != bytes) {
        arena_ = Rows();
        arena_ = Rows(words);
    }
    const Run run{*ring_, keys, arena_.data(), arena_rows_, thread_rows_};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Value& value = values_[inputs_[i / 2]];
        for (std::size_t row = 0; row < value.rows; ++row) {
            std::memcpy(run.row(value, i % 2, row), inputs[i] + row * ring_->n(), row_bytes);
        }
    }
    std::size_t first = 0;
    for (const std::size_t last : wave_ends_) {
        if (control.cancelled.load(std::memory_order_relaxed)) return false;
        perform(run, first, last, *pool_);
        control.done.store(last, std::memory_order_relaxed);
        first = last;
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const Value& value = values_[outputs_[i]];
        for (std::size_t row = 0; row < value.rows * value.polynomials; ++row) {
            std::memcpy(outputs[i] + row * ring_->n(), run.row(value.offset + row), row_bytes);
        }
    }
    return true;
}

void Program::perform(const Run& run, std::size_t first, std::size_t last, Pool& pool) const {
    std::size_t phases = 0;
    for (std::size_t i = first; i < last; ++i) phases = std::max(phases, operations_[i]->phases());
    for (std::size_t phase = 0; phase < phases; ++phase) {
        std::size_t total = 0;
        const auto tasks = [&](std::size_t i) {
            return phase < operations_[i]->phases() ? operations_[i]->tasks(phase) : 0;
        };
        for (std::size_t i = first; i < last; ++i) total += tasks(i);
        pool.run(total, [&](std::size_t task, std::size_t thread) {
            std::size_t i = first;
            for (; task >= tasks(i); ++i) task -= tasks(i);
            operations_[i]->perform(run, phase, task, thread);
        });
    }
}

std::size_t Program::run_bytes(std::size_t threads) const {
    return row_stride(ring_->n()) * (arena_rows_ + threads * thread_rows_) * sizeof(Word);
}

}  // namespace heinfer
