#include <algorithm>

#include "../operation.h"

namespace heinfer {

namespace {

constexpr std::size_t parts = 2;  // of a row with kept constants, so that few rows keep two threads busy

class Sum final : public Operation {
  public:
    Sum(const SumOf& sum, const Constants& constants, bool scalar, std::size_t n)
        : sum_(sum), constants_(constants), kept_(constants.kept(sum.block)), count_(sum.factors.size() + sum.plains),
          scalar_(scalar), n_(n) {}

    std::size_t phases() const override { return kept_ == Kept::slots ? 2 : 1; }
    std::size_t tasks(std::size_t phase) const override {
        if (phase + 1 < phases()) return count_;
        return made() ? sum_.out.rows : parts * sum_.out.rows;
    }
    Needs needs() const override { return needs_of_sum(kept_, count_); }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const override {
        if (phase + 1 < phases()) {
            constants_.transform_slots(sum_.block, task, doubles(run, task));
        } else if (made()) {
            add_up_made(run, task, thread);
        } else {
            add_up_kept(run, task / parts, task % parts * (n_ / parts));
        }
    }

  private:
    struct Pointers {
        std::vector<const Word*> left[2], added[2];
    };

    bool plain_pair() const {
        if (!sum_.factors.empty() || sum_.plains || sum_.addends.size() != 2) return false;
        return sum_.addends[0].polynomials == sum_.out.polynomials &&
               sum_.addends[1].polynomials == sum_.out.polynomials;
    }

    const Modulus& modulus(const Run& run, std::size_t row) const { return run.ring.modulus(run.prime(sum_.out, row)); }

    /// Whether its constants are made in every run.
    bool made() const { return kept_ != Kept::residues && count_ > 0; }

    double* doubles(const Run& run, std::size_t place) const {
        return reinterpret_cast<double*>(run.row(sum_.scratch + 2 * place));
    }

    void add_up_kept(const Run& run, std::size_t row, std::size_t start) const {
        if (plain_pair()) {
            for (std::size_t i = 0; i < sum_.out.polynomials; ++i) {
                run.ring.kernels().add(modulus(run, row), n_ / parts, run.row(sum_.addends[0], i, row) + start,
                                       run.row(sum_.addends[1], i, row) + start, run.row(sum_.out, i, row) + start);
            }
            return;
        }
        const Word* words = constants_.residues(sum_.block) + row * count_ * (scalar_ ? 1 : n_);
        dot(run, row, {0, count_, words + (scalar_ ? 0 : start * count_), start, n_ / parts});
    }

    /// Some constants' rows are made at a time, and what they give is added to what the others before them gave.
    void add_up_made(const Run& run, std::size_t row, std::size_t thread) const {
        Word *made = run.own_row(thread, 0), *words = run.own_row(thread, 1);
        for (std::size_t first = 0; first < count_; first += made_together) {
            const std::size_t end = std::min(first + made_together, count_);
            for (std::size_t place = first; place < end; ++place) {
                constants_.row(sum_.block, place, row, kept_ == Kept::slots ? doubles(run, place) : nullptr, made);
                spread(made, n_, end - first, words + (place - first) * tile_words);
            }
            dot(run, row, {first, end, words, 0, n_});
        }
    }

    /// Constants from `first` on and before `end`, and those words of a row that are added up.
    struct Part {
        std::size_t first, end;
        const Word* constants;
        std::size_t start, length;
    };

    /// Two polynomials share the constants; a third one has terms of its own.
    void dot(const Run& run, std::size_t row, const Part& part) const {
        for (std::size_t first = 0; first < sum_.out.polynomials; first += 2) {
            const std::size_t last = first + 1 < sum_.out.polynomials ? first + 1 : first;
            if (uniform(first, last)) {
                dot_pair(run, row, part, first, last);
            } else {
                dot_pair(run, row, part, first, first);
                dot_pair(run, row, part, last, last);
            }
        }
    }

    /// Whether all operands have both polynomials or neither.
    bool uniform(std::size_t first, std::size_t last) const {
        for (const auto* values : {&sum_.factors, &sum_.addends}) {
            for (const Value& value : *values) {
                if ((value.polynomials > first) != (value.polynomials > last)) return false;
            }
        }
        return true;
    }

    void dot_pair(const Run& run, std::size_t row, const Part& part, std::size_t first, std::size_t last) const {
        Pointers at;
        const std::size_t factors = sum_.factors.size();
        for (std::size_t k = part.first; k < std::min(part.end, factors); ++k) {
            if (sum_.factors[k].polynomials <= first) continue;
            at.left[0].push_back(run.row(sum_.factors[k], first, row) + part.start);
            at.left[1].push_back(run.row(sum_.factors[k], last, row) + part.start);
        }
        const auto add = [&](const Value& value) {
            at.added[0].push_back(run.row(value, first, row) + part.start);
            at.added[1].push_back(run.row(value, last, row) + part.start);
        };
        if (part.first > 0) {
            add(sum_.out);
        } else {
            for (const Value& value : sum_.addends) {
                if (value.polynomials > first) add(value);
            }
        }
        // Terms that lack a third polynomial come last: make_sum has ordered them, so their constants are skipped.
        const Dot d{at.left[0].size(),
                    first == 0 ? part.end - std::clamp(factors, part.first, part.end) : 0,
                    part.end - part.first,
                    at.added[0].size(),
                    {at.left[0].data(), at.left[1].data()},
                    {at.added[0].data(), at.added[1].data()},
                    part.constants,
                    scalar_,
                    {run.row(sum_.out, first, row) + part.start,
                     last == first ? nullptr : run.row(sum_.out, last, row) + part.start}};
        run.ring.kernels().dot(modulus(run, row), part.length, d);
    }

    SumOf sum_;
    const Constants& constants_;
    Kept kept_;
    std::size_t count_;
    bool scalar_;
    std::size_t n_;
};

}  // namespace

std::unique_ptr<Operation> make_sum(const SumOf& sum, const Constants& constants, bool scalar, std::size_t n) {
    return std::make_unique<Sum>(sum, constants, scalar, n);
}

}  // namespace heinfer
