#include <stdexcept>
#include <string>

#include "kernels.h"

namespace heinfer {

namespace {

bool runs(const Kernels& kernels) {
#ifdef HEINFER_X86
    if (&kernels == &avx512_kernels) return __builtin_cpu_supports("avx512f");
    if (&kernels == &avx2_kernels) return __builtin_cpu_supports("avx2");
#endif
    return &kernels == &portable_kernels;
}

}  // namespace

const Kernels& choose_kernels(const char* name) {
    const std::string wanted = name;
    for (const Kernels* kernels : {
#ifdef HEINFER_X86
             &avx512_kernels, &avx2_kernels,
#endif
             &portable_kernels}) {
        if ((wanted.empty() || wanted == kernels->name) && runs(*kernels)) return *kernels;
    }
    throw std::invalid_argument("this processor has no instruction set " + wanted);
}

}  // namespace heinfer
