// The constants of a program's sums, each kept in one of three ways: as what a sum multiplies by, or as what that is made
// of in every run. All that is kept lies in one piece of memory, which may be somebody else's (a mapped file).
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "encode.h"
#include "memory.h"
#include "pool.h"

namespace heinfer {

/// A constant: slots, or one value for all of them, at a scale. The values must live until the constants are loaded.
struct Constant {
    const double* values;
    bool scalar;
    double scale;
};

/// What is kept of the constants of a sum.
enum class Kept : std::size_t {
    slots = 0,         ///< N / 2 doubles each: a Fourier transform and a transform for each row in every run
    coefficients = 1,  ///< N words each: a transform for each row; every coefficient must fit 32 bits, with its sign
    residues = 2,      ///< N words for each row; of scalars one
};

class Constants {
  public:
    explicit Constants(std::shared_ptr<const Ring> ring) : ring_(ring), encoder_(std::move(ring)) {}

    /// The constants of one sum, by their numbers: for each of `rows` rows (the last one modulo the special prime, if
    /// extended) tile by tile a tile of each; or one word of each, if all are scalars, which are kept as residues.
    /// Returns the block's number.
    std::size_t add(std::vector<std::size_t> numbers, std::size_t rows, bool extended, bool scalar, Kept kept);

    /// Says what the numbers stand for, and makes all that is kept. std::invalid_argument or std::range_error for
    /// constants that cannot be encoded, or not be kept in the way that their block says.
    void load(std::vector<Constant> constants, std::size_t threads);
    /// The same, `words` being what is kept: they must live as long as the program.
    void load(std::vector<Constant> constants, const Word* words, std::size_t count);
    bool loaded() const { return loaded_ || blocks_.empty(); }

    Kept kept(std::size_t block) const { return blocks_[block].kept; }
    /// The words of a block that is kept as residues.
    const Word* residues(std::size_t block) const { return words_ + blocks_[block].offset; }
    /// Number of constants in a block.
    std::size_t count(std::size_t block) const { return blocks_[block].numbers.size(); }

    /// Doubles of `out`: the coefficients of one of a block's constants that is kept as slots.
    void transform_slots(std::size_t block, std::size_t place, double* out) const noexcept;
    /// n words: a row of one of a block's constants, of its coefficients: those of `doubles`, or kept ones for null.
    void row(std::size_t block, std::size_t place, std::size_t row, const double* doubles, Word* out) const noexcept;

    /// All that is kept, in words.
    std::size_t kept_words() const { return kept_words_; }
    const Word* data() const { return words_; }

  private:
    struct Block {
        std::vector<std::size_t> numbers;
        std::size_t rows;
        bool extended, scalar;
        Kept kept;
        std::size_t offset;
    };
    /// What is needed of a constant once it is loaded; the value is a scalar's.
    struct Known {
        double value, scale;
        bool scalar;
    };

    void take(const std::vector<Constant>& constants);
    /// Makes what is kept of one of a block's constants; false when a coefficient does not fit.
    bool make(const Block& block, std::size_t place, const Constant& constant, Word* out) const;
    void make_residues(const Block& block, std::size_t place, const Constant& constant, Word* out) const;
    std::size_t prime(const Block& block, std::size_t row) const {
        return block.extended && row + 1 == block.rows ? ring_->special() : row;
    }
    /// All words of a scalar's rows, one a row.
    std::vector<Word> scalar_words(const Block& block, double value, double scale) const;
    const Word* place(const Block& block, std::size_t place) const { return words_ + block.offset + place * ring_->n(); }

    std::shared_ptr<const Ring> ring_;
    Encoder encoder_;
    std::vector<Block> blocks_;
    std::vector<Known> known_;
    std::size_t kept_words_ = 0;
    Rows own_;
    const Word* words_ = nullptr;
    bool loaded_ = false;
};

/// Copies a row of n words to its places among those of `stride` constants, tile by tile.
void spread(const Word* row, std::size_t n, std::size_t stride, Word* out);

}  // namespace heinfer
