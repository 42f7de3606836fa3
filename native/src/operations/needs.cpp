#include <stdexcept>

#include "../operation.h"

namespace heinfer {

Needs needs_of(Code code, std::size_t rows, std::size_t polynomials, std::size_t count) {
    // A key switch keeps a digit for each row, and for each target two sums modulo every prime and the special one.
    const auto key_switch = [rows](std::size_t targets) { return Needs{rows + targets * 2 * (rows + 1), rows}; };
    switch (code) {
        case Code::sum:
            return {rows * count, 0};
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
        case Code::multiply:
        case Code::extend:
            return {};
    }
    throw std::invalid_argument("there is no such operation");
}

}  // namespace heinfer
