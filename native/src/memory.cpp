#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

namespace heinfer {

namespace {
constexpr std::size_t cache_line = 64;
constexpr std::size_t huge_page = std::size_t{1} << 21;
}  // namespace

Rows::Rows(std::size_t words) {
    if (words > std::numeric_limits<std::size_t>::max() / 8) throw std::bad_alloc();
    bytes_ = words * sizeof(std::uint32_t);
    const std::size_t alignment = bytes_ >= huge_page ? huge_page : cache_line;
    const std::size_t size = (bytes_ + alignment - 1) / alignment * alignment;
    words_ = static_cast<std::uint32_t*>(std::aligned_alloc(alignment, size ? size : alignment));
    if (!words_) throw std::bad_alloc();
    if (alignment == huge_page) madvise(words_, size, MADV_HUGEPAGE);  // advice: works without
}

Rows::Rows(Rows&& other) noexcept
    : words_(std::exchange(other.words_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Rows& Rows::operator=(Rows&& other) noexcept {
    std::swap(words_, other.words_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

Rows::~Rows() { std::free(words_); }

}  // namespace heinfer
