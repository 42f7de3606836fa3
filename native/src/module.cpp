// The Python surface: arrays in, arrays out; the interpreter lock is free while anything is computed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>

#include "encode.h"
#include "keys.h"
#include "program.h"
#include "ring.h"
#include "seed.h"

namespace nb = nanobind;

namespace heinfer {
namespace {

template <class T, int dimensions>
using Array = nb::ndarray<const T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using NewArray = nb::ndarray<nb::numpy, T>;

constexpr std::size_t most_threads = 256;
/// Of the arrays, their numbers and the functions: another one whenever they change (heinfer/backends/native/library.py).
constexpr int format = 3;

template <class T>
NewArray<T> new_array(std::initializer_list<std::size_t> shape) {
    std::size_t size = 1;
    for (const std::size_t length : shape) size *= length;
    T* data = new T[size];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return NewArray<T>(data, shape, owner);
}

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

Seed seed_of(const char* bytes) {
    Seed seed;
    std::memcpy(seed.data(), bytes, seed.size());
    return seed;
}

template <class Transformation>
NewArray<Word> transformed(const Ring& ring, const Array<Word, 2>& rows, const std::vector<std::size_t>& primes,
                           Transformation transformation) {
    require(rows.shape(0) == primes.size() && rows.shape(1) == ring.n(), "a row of N words for each prime is needed");
    for (const std::size_t prime : primes) require(prime <= ring.special(), "there is no such prime");
    auto out = new_array<Word>({rows.shape(0), ring.n()});
    for (std::size_t i = 0; i < primes.size(); ++i) {
        transformation(ring.transform(primes[i]), rows.data() + i * ring.n(), out.data() + i * ring.n());
    }
    return out;
}

void add_key(Keys& keys, std::size_t step, std::size_t rows, const Array<Word, 3>& words, const nb::bytes& seeds,
             std::size_t threads) {
    const std::size_t digits = words.shape(0);
    require(words.shape(1) == digits + 1 && words.shape(2) == keys.ring().n() &&
                seeds.size() == digits * sizeof(Seed) && threads >= 1 && threads <= most_threads,
            "a key is (l, l + 1, N) words and l seeds of 64 bytes");
    std::vector<Seed> list;
    for (std::size_t j = 0; j < digits; ++j) list.push_back(seed_of(seeds.c_str() + j * sizeof(Seed)));
    const nb::gil_scoped_release released;
    Pool pool(threads);
    keys.add(step, rows, words.data(), list, pool);
}

NewArray<std::uint64_t> expand(const nb::bytes& seed, std::size_t n, const std::vector<std::uint64_t>& moduli,
                               const std::string& kernels) {
    require(seed.size() == sizeof(Seed) && n >= 1 && n <= std::size_t{1} << 17, "a seed has 64 bytes");
    for (const std::uint64_t q : moduli) require(q > 0, "a modulus is positive");
    auto out = new_array<std::uint64_t>({moduli.size(), n});
    expand_seed(choose_kernels(kernels.c_str()), seed_of(seed.c_str()), n, moduli, out.data());
    return out;
}

NewArray<Word> encode(const std::shared_ptr<Ring>& ring, const Array<double, 1>& slots, double scale,
                      const std::vector<std::size_t>& primes) {
    require(slots.shape(0) == ring->n() / 2, "there must be N / 2 slots");
    for (const std::size_t prime : primes) require(prime <= ring->special(), "there is no such prime");
    const Encoder encoder(ring);
    const auto coefficients = encoder.coefficients(slots.data(), scale);
    auto out = new_array<Word>({primes.size(), ring->n()});
    for (std::size_t i = 0; i < primes.size(); ++i) encoder.row(coefficients.data(), primes[i], out.data() + i * ring->n());
    return out;
}

std::vector<Constant> constants_of(const Program& program, const std::vector<Array<double, 1>>& vectors,
                                   const std::vector<double>& scales) {
    require(vectors.size() == scales.size(), "every constant has a scale");
    std::vector<Constant> constants;
    for (std::size_t i = 0; i < vectors.size(); ++i) {
        const std::size_t length = vectors[i].shape(0);
        require(length == 1 || length == program.ring().n() / 2, "a constant has one value, or one for each slot");
        constants.push_back({vectors[i].data(), length == 1, scales[i]});
    }
    return constants;
}

void load(Program& program, const std::vector<Array<double, 1>>& vectors, const std::vector<double>& scales,
          std::size_t threads) {
    require(threads >= 1 && threads <= most_threads, "there is at least one thread");
    auto constants = constants_of(program, vectors, scales);
    const nb::gil_scoped_release released;
    program.constants().load(std::move(constants), threads);
}

void load_encoded(Program& program, const std::vector<Array<double, 1>>& vectors, const std::vector<double>& scales,
                  const Array<Word, 1>& words) {
    program.constants().load(constants_of(program, vectors, scales), words.data(), words.shape(0));
}

/// Residues (primes, n), transformed, of a polynomial's coefficients.
NewArray<Word> reduced(const std::shared_ptr<Ring>& ring, const Array<std::int32_t, 1>& coefficients,
                       const std::vector<std::size_t>& primes) {
    require(coefficients.shape(0) == ring->n(), "there must be N coefficients");
    for (const std::size_t prime : primes) require(prime <= ring->special(), "there is no such prime");
    const Encoder encoder(ring);
    std::vector<Word> words(ring->n());
    Encoder::narrow({coefficients.data(), coefficients.data() + ring->n()}, words.data());
    auto out = new_array<Word>({primes.size(), ring->n()});
    for (std::size_t i = 0; i < primes.size(); ++i) encoder.row(words.data(), primes[i], out.data() + i * ring->n());
    return out;
}

/// A view, for whoever wants to store them.
nb::object encoded(nb::handle self) {
    const Constants& constants = nb::cast<const Program&>(self).constants();
    require(constants.loaded(), "the constants are not loaded");
    return nb::cast(nb::ndarray<nb::numpy, const Word>(constants.data(), {constants.kept_words()}, self));
}

nb::object run(Program& program, const std::vector<Array<Word, 2>>& inputs, const Keys& keys, std::size_t threads,
               Control& control) {
    require(inputs.size() == 2 * program.inputs().size(), "there are two polynomials for every input");
    require(threads >= 1 && threads <= most_threads, "there is at least one thread");
    const std::size_t n = program.ring().n();
    std::vector<const Word*> from;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        require(inputs[i].shape(0) == program.value(program.inputs()[i / 2]).rows && inputs[i].shape(1) == n,
                "an input is of another shape");
        from.push_back(inputs[i].data());
    }
    std::vector<Word*> to;
    nb::list results;
    for (const std::size_t number : program.outputs()) {
        const Value& value = program.value(number);
        auto array = new_array<Word>({value.polynomials, value.rows, n});
        to.push_back(array.data());
        results.append(nb::cast(array));
    }
    bool finished;
    {
        const nb::gil_scoped_release released;
        finished = program.run(from, keys, threads, control, to);
    }
    return finished ? nb::object(results) : nb::none();
}

std::pair<std::size_t, std::size_t> rows_needed(Code code, std::size_t rows, std::size_t polynomials,
                                                std::size_t count) {
    const Needs needs = needs_of(code, rows, polynomials, count);
    return {needs.scratch, needs.thread};
}

std::pair<std::size_t, std::size_t> sum_rows_needed(Kept kept, std::size_t count) {
    const Needs needs = needs_of_sum(kept, count);
    return {needs.scratch, needs.thread};
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const char* name : {"avx512", "avx2", "portable"}) {
        try {
            names.emplace_back(choose_kernels(name).name);
        } catch (const std::invalid_argument&) {
        }
    }
    return names;
}

}  // namespace
}  // namespace heinfer

NB_MODULE(_native, m) {
    using namespace heinfer;
    m.attr("FORMAT") = format;
    m.def("instruction_sets", &instruction_sets);
    nb::enum_<Code>(m, "Code", nb::is_arithmetic())
        .value("sum", Code::sum)
        .value("rotate", Code::rotate)
        .value("multiply", Code::multiply)
        .value("relinearize", Code::relinearize)
        .value("multiply_relinearize", Code::multiply_relinearize)
        .value("divide", Code::divide)
        .value("divide_twice", Code::divide_twice)
        .value("extend", Code::extend);
    m.def("rows_needed", &rows_needed, nb::arg("code"), nb::arg("rows"), nb::arg("polynomials"), nb::arg("count"));
    nb::enum_<Kept>(m, "Kept", nb::is_arithmetic())
        .value("slots", Kept::slots)
        .value("coefficients", Kept::coefficients)
        .value("residues", Kept::residues);
    m.def("sum_rows_needed", &sum_rows_needed, nb::arg("kept"), nb::arg("count"));
    m.def("row_stride", &row_stride, nb::arg("n"));
    m.def("expand_seed", &expand, nb::arg("seed"), nb::arg("n"), nb::arg("moduli"), nb::arg("kernels") = "");
    m.def("reduced", &reduced, nb::arg("ring"), nb::arg("coefficients"), nb::arg("primes"));
    m.def("encode", &encode, nb::arg("ring"), nb::arg("slots"), nb::arg("scale"), nb::arg("primes"));
    nb::class_<Ring>(m, "Ring")
        .def(nb::init<std::size_t, const std::vector<Word>&, const std::string&>(), nb::arg("n"), nb::arg("primes"),
             nb::arg("kernels") = "")
        .def_prop_ro("kernels", [](const Ring& ring) { return ring.kernels().name; })
        .def("forward",
             [](const Ring& ring, const Array<Word, 2>& rows, const std::vector<std::size_t>& primes) {
                 return transformed(ring, rows, primes, [&](const Transform& t, const Word* from, Word* to) {
                     ring.kernels().forward(t, from, {}, to);
                 });
             })
        .def("inverse", [](const Ring& ring, const Array<Word, 2>& rows, const std::vector<std::size_t>& primes) {
            return transformed(ring, rows, primes, [&](const Transform& t, const Word* from, Word* to) {
                ring.kernels().inverse(t, from, 0, to);
            });
        });
    nb::class_<Keys>(m, "Keys")
        .def("__init__",
             [](Keys* self, std::shared_ptr<Ring> ring) { new (self) Keys(std::shared_ptr<const Ring>(ring)); })
        .def("add", &add_key, nb::arg("step"), nb::arg("rows"), nb::arg("words"), nb::arg("seeds"),
             nb::arg("threads") = 1)
        .def_prop_ro("bytes", &Keys::bytes);
    nb::class_<Control>(m, "Control")
        .def(nb::init<>())
        .def("cancel", [](Control& control) { control.cancelled = true; })
        .def_prop_ro("done", [](const Control& control) { return control.done.load(); });
    nb::class_<Program>(m, "Program")
        .def("__init__",
             [](Program* self, std::shared_ptr<Ring> ring, const Array<std::int64_t, 1>& values,
                const Array<std::int64_t, 1>& code, std::vector<std::size_t> inputs, std::vector<std::size_t> outputs,
                std::size_t arena_rows) {
                 new (self) Program(std::shared_ptr<const Ring>(ring),
                                    {values.data(), values.data() + values.shape(0)},
                                    {code.data(), code.data() + code.shape(0)}, std::move(inputs), std::move(outputs),
                                    arena_rows);
             })
        .def("load", &load, nb::arg("vectors"), nb::arg("scales"), nb::arg("threads") = 1)
        .def("load_encoded", &load_encoded, nb::arg("vectors"), nb::arg("scales"), nb::arg("words"),
             nb::keep_alive<1, 4>())
        .def_prop_ro("encoded", &encoded)
        .def("run", &run, nb::arg("inputs"), nb::arg("keys"), nb::arg("threads"), nb::arg("control"))
        .def_prop_ro("operations", &Program::operations)
        .def_prop_ro("constant_bytes", &Program::constant_bytes)
        .def("run_bytes", &Program::run_bytes, nb::arg("threads"));
}
