// What one core can do: multiply-adds, inverse roots, exponentials and logarithms per second, with
// the vectors and the functions of vectors.hpp and enough independent chains to hide latencies.

#include "vectors.hpp"

template <class Step> double repeat(int64_t n, Step step) {
    constexpr int chains = 12;
    Vector<float> x[chains];
    for (int k = 0; k < chains; ++k) x[k] = Math<float>::fill(0.5 + 0.01 * k);
    for (int64_t i = 0; i < n; ++i)
        for (int k = 0; k < chains; ++k) x[k] = step(x[k]);
    double sum = 0;
    for (int k = 0; k < chains; ++k) sum += x[k][0];
    return sum;
}

// Each does 12 n lanes_float32() operations; the sum keeps the compiler from leaving them out
extern "C" {
double multiply_adds(int64_t n) {
    return repeat(n, [](auto x) { return x * 0.999f + 0.001f; });
}
double inverse_roots(int64_t n) {
    return repeat(n, [](auto x) { return Math<float>::inverse_root(x); });
}
double exponentials(int64_t n) {
    return repeat(n, [](auto x) { return Math<float>::exp(-x); });
}
double logarithms(int64_t n) {
    return repeat(n, [](auto x) { return 1.5f + Math<float>::log(x); });
}
}
