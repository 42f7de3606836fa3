// Memory for rows: aligned to cache lines, in huge pages where the system has them, for prefetching ends at pages.
#pragma once
#include <cstddef>
#include <cstdint>

namespace heinfer {

class Rows {
  public:
    Rows() = default;
    explicit Rows(std::size_t words);  ///< not initialised; std::bad_alloc when there is no memory
    Rows(Rows&& other) noexcept;
    Rows& operator=(Rows&& other) noexcept;
    ~Rows();

    std::uint32_t* data() const { return words_; }
    std::size_t bytes() const { return bytes_; }

  private:
    std::uint32_t* words_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace heinfer
