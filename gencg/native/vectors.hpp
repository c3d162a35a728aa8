// Vectors of the processor, and functions of them, inline and the same on every processor.

#pragma once

#include <cmath>
#include <cstdint>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

namespace {

// --- Vectors and their functions ---------------------------------------------------------------

template <class T> struct Lanes;

template <> struct Lanes<float> {
    typedef float V __attribute__((vector_size(BYTES)));
    typedef int32_t I __attribute__((vector_size(BYTES)));
    static constexpr int width = BYTES / 4, mantissa = 23, bias = 127, odd_terms = 5, exp_terms = 7;
    static constexpr float least_exponent = -87.0f;
};

template <> struct Lanes<double> {
    typedef double V __attribute__((vector_size(BYTES)));
    typedef int64_t I __attribute__((vector_size(BYTES)));
    static constexpr int width = BYTES / 8, mantissa = 52, bias = 1023, odd_terms = 12, exp_terms = 13;
    static constexpr double least_exponent = -708.0;
};

template <class T> using Vector = typename Lanes<T>::V;
template <class T> using Integers = typename Lanes<T>::I;

constexpr double PI = 3.14159265358979323846;

// 1 / n! and 1 / (2 n + 1), as tables: a loop which is not unrolled would divide
constexpr double FACTORIAL[] = {1.,          1.,           1. / 2,        1. / 6,         1. / 24,
                                1. / 120,    1. / 720,     1. / 5040,     1. / 40320,     1. / 362880,
                                1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
constexpr double ODD[] = {1.,      1. / 3,  1. / 5,  1. / 7,  1. / 9,  1. / 11, 1. / 13,
                          1. / 15, 1. / 17, 1. / 19, 1. / 21, 1. / 23, 1. / 25};

template <class T> struct Math {
    using V = Vector<T>;
    using I = Integers<T>;
    static constexpr int W = Lanes<T>::width;

    static V fill(double value) { return V{} + T(value); }

    static V maximum(V a, V b) { return a > b ? a : b; }

    static V absolute(V a) { return a < T(0) ? -a : a; }

    static V root(V a) {
        V result;
        for (int k = 0; k < W; ++k) result[k] = std::sqrt(a[k]);
        return result;
    }

    static V inverse_root(V a) { return T(1) / root(a); }

    // 1 + a z + a^2 z^2 ... with coefficients 1 / (2 k + 1): atanh(s) / s at z = s^2, atan at -s^2
    static V odd_series(V z) {
        V sum = fill(ODD[Lanes<T>::odd_terms]);
        for (int k = Lanes<T>::odd_terms - 1; k >= 0; --k) sum = sum * z + T(ODD[k]);
        return sum;
    }

    // Of positive, normal numbers: x = 2^e m with m near 1, log m = 2 atanh((m - 1) / (m + 1))
    static V log(V x) {
        constexpr T root_half = T(0.70710678118654752440);
        const I offset = (I)fill(root_half);
        const I shifted = (I)x - offset;
        const I e = shifted >> Lanes<T>::mantissa;
        const V m = (V)((I)x - (e << Lanes<T>::mantissa));
        const V s = (m - T(1)) / (m + T(1));
        return __builtin_convertvector(e, V) * T(0.69314718055994530942) +
               T(2) * s * odd_series(s * s);
    }

    // Of numbers up to 1, as small as they may be: 2^k exp(r) with |r| <= log(2) / 2
    static V exp(V x) {
        x = maximum(x, fill(Lanes<T>::least_exponent));
        const T magic = T(3ll << (Lanes<T>::mantissa - 1));
        const V shifted = x * T(1.44269504088896340736) + magic, whole = shifted - magic;
        // log 2 in two parts, of which the first times k is exact
        const V r = (x - whole * T(0.693145751953125)) - whole * T(1.42860682030941723212e-6);
        V sum = fill(FACTORIAL[Lanes<T>::exp_terms]);
        for (int n = Lanes<T>::exp_terms - 1; n >= 0; --n) sum = sum * r + T(FACTORIAL[n]);
        return sum * (V)(((I)shifted + Lanes<T>::bias) << Lanes<T>::mantissa);
    }

    static V tanh(V x) {
        const V e = exp(T(-2) * absolute(x));
        const V value = (T(1) - e) / (T(1) + e);
        return x < T(0) ? -value : value;
    }

    // Halved twice, the angle is below 0.2 and the series short
    static V atan2(V y, V x) {
        const V ax = absolute(x), ay = absolute(y);
        const auto steep = ay > ax;
        V t = (steep ? ax : ay) / maximum(steep ? ay : ax, fill(1e-37));
        t = t / (T(1) + root(T(1) + t * t));
        t = t / (T(1) + root(T(1) + t * t));
        V angle = T(4) * t * odd_series(-t * t);
        angle = steep ? T(PI / 2) - angle : angle;
        angle = x < T(0) ? T(PI) - angle : angle;
        return y < T(0) ? -angle : angle;
    }
};

}  // namespace
