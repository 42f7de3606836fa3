// Fuzz target of the native library's reader of programs: what it takes is also run, on a ring of N = 64.
//
// Built with -fsanitize=fuzzer,address,undefined (`make fuzz-native`), or with -DREPLAY and any compiler into a program that
// takes the names of files (tests/backends/test_fuzz_programs.py). Nothing but std::invalid_argument and std::range_error may come
// out, and no access may be wrong. tests/fuzz/program_seeds.py writes the format that `Bytes` reads.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "keys.h"
#include "program.h"

namespace {

using namespace heinfer;

constexpr std::size_t n = 64, most_bytes = std::size_t{1} << 22, most_numbers = 4096;

/// A byte below 240 is a number from -2 to 237; any other stands before one of eight bytes. After the end come zeros.
class Bytes {
  public:
    Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    bool more() const { return at_ < size_; }
    std::uint8_t byte() { return more() ? data_[at_++] : 0; }
    std::int64_t number() {
        const std::uint8_t first = byte();
        if (first < 240) return std::int64_t{first} - 2;
        std::uint64_t found = 0;
        for (int i = 0; i < 8; ++i) found |= std::uint64_t{byte()} << (8 * i);
        std::int64_t result;
        std::memcpy(&result, &found, sizeof result);
        return result;
    }
    std::vector<std::int64_t> numbers() {
        const std::int64_t count = number();
        std::vector<std::int64_t> found;
        for (std::int64_t i = 0; i < count && more() && found.size() < most_numbers; ++i) found.push_back(number());
        return found;
    }
    std::vector<std::size_t> sizes() {
        const auto found = numbers();
        return {found.begin(), found.end()};
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_, at_ = 0;
};

bool is_prime(Word q) {
    for (Word divisor = 3; std::uint64_t{divisor} * divisor <= q; divisor += 2) {
        if (q % divisor == 0) return false;
    }
    return true;
}

/// The largest prime of so many bits that is 1 modulo 2N and below another one.
Word prime_of(int bits, Word below) {
    Word q = (Word{1} << bits) - 2 * n + 1;
    while (q >= below || !is_prime(q)) q -= 2 * n;
    return q;
}

/// One client's keys for relinearization and for rotations by 1 and 7, of any words.
struct Scene {
    std::shared_ptr<const Ring> ring;
    Keys keys;
    std::vector<Word> row;
    std::vector<double> slots, huge;

    Scene() : ring(make_ring()), keys(ring), row(4 * n, 12345), slots(n / 2, 0.75), huge(n / 2, 0x1p1020) {
        const std::size_t digits = ring->data_primes();
        const std::vector<Word> words(digits * (digits + 1) * n, 54321);
        std::vector<Seed> seeds(digits);
        for (std::size_t j = 0; j < digits; ++j) std::memset(seeds[j].data(), static_cast<int>(j), sizeof(Seed));
        Pool pool(1);
        for (const std::size_t step : {0, 1, 7}) keys.add(step, digits, words.data(), seeds, pool);
    }

    static std::shared_ptr<const Ring> make_ring() {
        const Word special = prime_of(30, Word{1} << 30);
        return std::make_shared<Ring>(
            n, std::vector<Word>{prime_of(30, special), prime_of(24, special), prime_of(28, special), special}, "portable");
    }
};

void run(Scene& scene, Bytes bytes) {
    const std::size_t threads = 1 + bytes.byte() % 2;
    const auto arena_rows = static_cast<std::size_t>(bytes.number());
    auto inputs = bytes.sizes();
    auto outputs = bytes.sizes();
    const auto values = bytes.numbers();
    std::vector<Constant> constants;
    for (const std::int64_t exponent : bytes.numbers()) {  // even: of all slots; odd: one value; below 0: huge ones
        const auto& slots = exponent < 0 ? scene.huge : scene.slots;
        constants.push_back({slots.data(), exponent % 2 != 0, std::exp2(static_cast<double>(exponent % 1024))});
    }
    std::vector<std::int64_t> code;
    while (bytes.more() && code.size() < most_numbers) code.push_back(bytes.number());

    Program program(scene.ring, values, code, std::move(inputs), std::move(outputs), arena_rows);
    if (program.constant_bytes() > most_bytes || program.run_bytes(threads) > most_bytes) return;
    program.constants().load(std::move(constants), threads);
    std::vector<const Word*> from(2 * program.inputs().size(), scene.row.data());
    std::vector<std::vector<Word>> results;
    std::size_t words = 0;
    for (const std::size_t number : program.outputs()) {
        const Value& value = program.value(number);
        words += value.polynomials * value.rows * n;
        if (words * sizeof(Word) > most_bytes) return;
        results.emplace_back(value.polynomials * value.rows * n);
    }
    std::vector<Word*> to;
    for (auto& result : results) to.push_back(result.data());
    Control control;
    program.run(from, scene.keys, threads, control, to);
}

/// "run", or why it was refused.
std::string outcome(Scene& scene, Bytes bytes) {
    try {
        run(scene, bytes);
    } catch (const std::invalid_argument& error) {
        return error.what();
    } catch (const std::range_error& error) {
        return error.what();
    }
    return "run";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Scene scene;
    outcome(scene, {data, size});
    return 0;
}

#ifdef REPLAY
#include <cstdio>
#include <fstream>
#include <iterator>

/// Says of each file whether it was run or refused.
int main(int count, char** names) {
    Scene scene;
    for (int i = 1; i < count; ++i) {
        std::ifstream file(names[i], std::ios::binary);
        const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
        const Bytes bytes(reinterpret_cast<const std::uint8_t*>(data.data()), data.size());
        std::printf("%s: %s\n", names[i], outcome(scene, bytes).c_str());
    }
    return count > 1 ? 0 : 1;
}
#endif
