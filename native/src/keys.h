// A client's evaluation keys, ready for use: expanded, moved, and without what no level of use needs.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "memory.h"
#include "pool.h"
#include "ring.h"
#include "seed.h"

namespace heinfer {

/// A switching key over the first `digits` data primes and the special one.
///
/// For each of these primes: tile by tile, for each digit a tile of b_j and one of a_j; so an inner product reads its
/// key as one stream. The key of a rotation by g is stored moved by 1/g: products then are taken before the move,
/// which remains for their sum alone.
struct SwitchingKey {
    std::size_t digits;
    Rows words;

    /// The part modulo the prime at `place`: 0 ... digits - 1, or digits for the special one.
    const Word* part(std::size_t n, std::size_t place) const { return words.data() + 2 * n * digits * place; }
};

class Keys {
  public:
    explicit Keys(std::shared_ptr<const Ring> ring) : ring_(std::move(ring)) {}
    Keys(const Keys&) = delete;
    Keys& operator=(const Keys&) = delete;

    /// Adds the key of a rotation, or of relinearization for step 0, for use with up to `rows` data primes.
    /// `seeds`: of a_j for the first data primes j, which expand over all primes whatever the key has;
    /// `words`: for each of them b_j over just these primes and the special one. std::invalid_argument for a bad size.
    void add(std::size_t step, std::size_t rows, const Word* words, const std::vector<Seed>& seeds, Pool& pool);

    const Ring& ring() const { return *ring_; }
    /// The key of a step, null when there is none for this number of data primes.
    const SwitchingKey* find(std::size_t step, std::size_t rows) const;
    std::size_t bytes() const;

  private:
    std::shared_ptr<const Ring> ring_;
    std::map<std::size_t, SwitchingKey> keys_;
};

}  // namespace heinfer
