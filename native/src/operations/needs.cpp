#include <algorithm>
#include <stdexcept>

#include "../operation.h"

namespace heinfer {

Needs needs_of_sum(Kept kept, std::size_t count) {
    if (kept == Kept::residues || count == 0) return {};
    // The coefficients of slots are doubles, two words each; a row is made by itself before it is spread among others.
    return {kept == Kept::slots ? 2 * count : 0, std::min(count, made_together) + 1};
}

Needs needs_of(Code code, std::size_t rows, std::size_t polynomials, std::size_t count) {
    // A key switch keeps a digit for each row, and for each target two sums modulo every prime and the special one.
    const auto key_switch = [rows](std::size_t targets) { return Needs{rows + targets * 2 * (rows + 1), rows}; };
    switch (code) {
        case Code::rotate:
            return key_switch(count);
        case Code::relinearize:
            return key_switch(1);
        case Code::multiply_relinearize:
            return {3 * rows + key_switch(1).scratch, key_switch(1).thread};
        case Code::divide:
            return {polynomials, 1};
        case Code::divide_twice:
            return {2 * polynomials, 2};
        case Code::sum:  // needs_of_sum
        case Code::multiply:
        case Code::extend:
            return {};
    }
    throw std::invalid_argument("there is no such operation");
}

}  // namespace heinfer
