// A ring with its tables: everything that programs and keys share. Immutable but for tables made on demand.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "galois.h"
#include "kernels.h"
#include "tables.h"

namespace heinfer {

/// What a rotation by one step needs besides its key.
struct Automorphism {
    MoveTable forward, backward;
    std::vector<Word> signs;
};

class Ring {
  public:
    /// Primes of the data, then the special one; std::invalid_argument when they are not what a ring needs.
    Ring(std::size_t n, const std::vector<Word>& primes, const std::string& kernels);

    std::size_t n() const { return n_; }
    std::size_t data_primes() const { return tables_.size() - 1; }
    std::size_t special() const { return tables_.size() - 1; }
    const Kernels& kernels() const { return kernels_; }
    const Modulus& modulus(std::size_t prime) const { return tables_[prime].modulus; }
    const Transform& transform(std::size_t prime) const { return transforms_[prime]; }
    /// 1 / q_of modulo q_prime.
    Factor inverse(std::size_t of, std::size_t prime) const { return inverses_[of][prime]; }
    /// q_of modulo q_prime.
    Word residue(std::size_t of, std::size_t prime) const { return modulus(of).q % modulus(prime).q; }

    const Automorphism& automorphism(std::size_t step) const;

    /// Reduced words modulo q_from that go into a transform modulo q_to; `offset` is added to each (to those under the
    /// mask that are not 0, if there is one).
    Lift lift(std::size_t from, std::size_t to, Word offset = 0, const Word* mask = nullptr) const;
    /// Of words shifted by half of q_from: what rounding subtracts before a division by q_from.
    Lift lift_rounded(std::size_t from, std::size_t to) const;

  private:
    std::size_t n_;
    const Kernels& kernels_;
    std::vector<Tables> tables_;
    std::vector<Transform> transforms_;
    std::vector<std::vector<Factor>> inverses_;
    mutable std::mutex mutex_;
    mutable std::map<std::size_t, std::unique_ptr<Automorphism>> automorphisms_;
};

}  // namespace heinfer
