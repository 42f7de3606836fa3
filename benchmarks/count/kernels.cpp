// Runs one kernel a number of times, and nothing else: the difference of two numbers has no start-up in it.
//
// kernels INSTRUCTION_SET KERNEL TIMES
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../native/src/galois.h"
#include "../../native/src/kernels.h"
#include "../../native/src/tables.h"

using namespace heinfer;

namespace {

constexpr std::size_t n = 8192, digits = 6, terms = 16;
constexpr Word prime = 1073692673, smaller = 67043329;  // of 30 and 26 bits, 1 mod 2n

}  // namespace

int main(int count, char** arguments) {
    if (count != 4) return 2;
    const std::map<std::string, const Kernels*> sets = {{"portable", &portable_kernels},
#ifdef HEINFER_X86
                                                        {"avx2", &avx2_kernels}
#endif
    };
    const auto set = sets.find(arguments[1]);
    if (set == sets.end()) return 2;
    const Kernels& kernels = *set->second;

    const auto transform = [](const Tables& t) {
        return Transform{t.modulus,        t.n,     t.root.data(), t.root_quotient.data(), t.inverse.data(),
                         t.inverse_quotient.data(), t.scale,       t.last_scale};
    };
    const Tables tables(n, prime), small_tables(n, smaller);
    const Transform large = transform(tables), small = transform(small_tables);
    const Modulus& modulus = tables.modulus;
    const MoveTable table(n, galois_element(n, 5));
    const Moves moves = table.moves();
    const std::vector<Word> mask = sign_mask(n, galois_element(n, 5));

    const std::size_t words = n * 2 * (terms + 1);
    std::vector<Word> data(words), constants(words), out(3 * n);
    for (std::size_t i = 0; i < words; ++i) {
        data[i] = static_cast<Word>(i * 2654435761u % smaller);
        constants[i] = static_cast<Word>(i * 2246822519u % smaller);
    }
    std::vector<const Word*> rows;
    for (std::size_t i = 0; i < 2 * terms; ++i) rows.push_back(data.data() + i * n);
    Word* outputs[3] = {out.data(), out.data() + n, out.data() + 2 * n};
    const Dot dot{terms,  0,     terms,
                  0,      {rows.data(), rows.data() + terms},
                  {nullptr, nullptr}, constants.data(), false, {outputs[0], outputs[1]}};
    std::uint64_t root[8] = {1, 2, 3, 4, 5, 6, 7, 8}, nodes[64];

    const std::map<std::string, std::function<void()>> runs = {
        {"forward", [&] { kernels.forward(large, data.data(), {}, out.data()); }},
        {"forward, reduced", [&] { kernels.forward(small, data.data(), {true, 0, nullptr}, out.data()); }},
        {"forward, signed", [&] { kernels.forward(small, data.data(), {true, 17, mask.data()}, out.data()); }},
        {"inverse", [&] { kernels.inverse(large, data.data(), 17, out.data()); }},
        {"inner_product", [&] { kernels.inner_product(modulus, n, rows.data(), digits, constants.data(), digits, outputs); }},
        {"divide, moved",
         [&] { kernels.divide(modulus, n, rows[0], rows[1], modulus.factor(5), rows[2], &moves, rows[3], out.data()); }},
        {"scale_move", [&] { kernels.scale_move(modulus, n, rows[0], modulus.factor(5), rows[1], &moves, out.data()); }},
        {"dot", [&] { kernels.dot(modulus, n, dot); }},
        {"add", [&] { kernels.add(modulus, n, rows[0], rows[1], out.data()); }},
        {"multiply", [&] { kernels.multiply(modulus, n, rows.data(), rows.data() + 2, outputs); }},
        {"expand_nodes", [&] { kernels.expand_nodes(root, 0, nodes); }},
    };
    const std::string wanted = arguments[2];
    if (wanted == "list") {
        for (const auto& [name, run] : runs) std::puts(name.c_str());
        return 0;
    }
    const auto run = runs.find(wanted);
    if (run == runs.end()) return 2;
    for (long times = std::atol(arguments[3]); times > 0; --times) run->second();
    return 0;
}
