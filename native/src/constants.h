// The constants of a program's sums: encoded at load, taken from memory that somebody else encoded, or encoded when a
// sum needs them.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "encode.h"
#include "memory.h"
#include "pool.h"

namespace heinfer {

/// A constant: slots, or one value for all of them, at a scale. The values must live as long as the program.
struct Constant {
    const double* values;
    bool scalar;
    double scale;
};

class Constants {
  public:
    explicit Constants(std::shared_ptr<const Ring> ring) : ring_(ring), encoder_(std::move(ring)) {}

    /// The constants of one sum, by their numbers: for each of `rows` rows (the last one modulo the special prime, if
    /// extended) tile by tile a tile of each; or one word of each, if all are scalars. Returns the block's number.
    std::size_t add(std::vector<std::size_t> numbers, std::size_t rows, bool extended, bool scalar, bool resident);

    /// Says what the numbers stand for, and encodes the resident blocks. std::invalid_argument or std::range_error for
    /// constants that cannot be encoded.
    void load(std::vector<Constant> constants, std::size_t threads);
    /// The same, the resident blocks being encoded already: `words` must live as long as the program.
    void load(std::vector<Constant> constants, const Word* words, std::size_t count);
    bool loaded() const { return loaded_ || blocks_.empty(); }

    /// The words of a block; null for one that is encoded in a run.
    const Word* resident(std::size_t block) const {
        return blocks_[block].resident ? words_ + blocks_[block].offset : nullptr;
    }
    std::size_t words(std::size_t block) const { return blocks_[block].words; }
    /// Number of constants in a block.
    std::size_t count(std::size_t block) const { return blocks_[block].numbers.size(); }
    /// Encodes one of a block's constants to its places in the block's words.
    void encode(std::size_t block, std::size_t place, Word* out) const noexcept;

    /// Words of all resident blocks, and where they are.
    std::size_t resident_words() const { return resident_words_; }
    const Word* data() const { return words_; }

  private:
    struct Block {
        std::vector<std::size_t> numbers;
        std::size_t rows;
        bool extended, scalar, resident;
        std::size_t words, offset;
    };

    void take(std::vector<Constant> constants);
    std::size_t prime(const Block& block, std::size_t row) const {
        return block.extended && row + 1 == block.rows ? ring_->special() : row;
    }
    /// All words of a scalar's rows, one a row.
    std::vector<Word> scalar_words(const Block& block, const Constant& constant) const;

    std::shared_ptr<const Ring> ring_;
    Encoder encoder_;
    std::vector<Block> blocks_;
    std::vector<Constant> constants_;
    std::size_t resident_words_ = 0;
    Rows own_;
    const Word* words_ = nullptr;
    bool loaded_ = false;
};

}  // namespace heinfer
