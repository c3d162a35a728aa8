// Monotone maps of coupling layers: values, gradients by hand, and the push of scores.
//
// The maps and their formulas are those of couplings.py and spline.py. The entries that move, of all
// rows, are taken one per lane of a vector; lanes never meet. Everything is row-major: x (n, dim),
// parameters (n, n_moved, n_parameters).

#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.hpp"

namespace {

constexpr double MIN_SHARE = 1e-3, MIN_SLOPE = 1e-3;       // as in spline.py
constexpr double UNIT_SLOPE = 0.539742417236952;           // log(exp(1 - MIN_SLOPE) - 1)
constexpr int MAX_BINS = 64;

enum Kind { CIRCLE, LINE, AFFINE };

struct Layer {
    int64_t kind, dim, n_moved, n_parameters;
    double bound;
    const int64_t *moved;
};

template <class T> using V = Vector<T>;

// Zero, or not a number if one of the values is none: exp and log below do not hand it on
template <class T> V<T> check(const V<T> *values, int64_t n) {
    V<T> sum{};
    for (int64_t k = 0; k < n; ++k) sum += T(0) * values[k];
    return sum;
}

template <class T> V<T> fill(double value) { return Math<T>::fill(value); }

// log(1 + exp x) and its slope
template <class T> void softplus(V<T> x, V<T> &value, V<T> &slope) {
    const V<T> e = Math<T>::exp(-Math<T>::absolute(x));
    const V<T> share = T(1) / (T(1) + e);
    value = Math<T>::maximum(x, V<T>{}) + Math<T>::log(T(1) + e);
    slope = x < T(0) ? e * share : share;
}

// --- Affine ---------------------------------------------------------------------------------------

// y = exp(b tanh(s / b)) x + t
template <class T> struct AffineMap {
    const V<T> *h;
    T bound;
    V<T> bounded, scale;

    AffineMap(const Layer &layer, const V<T> *h) : h(h), bound(T(layer.bound)) {
        bounded = Math<T>::tanh(h[1] / bound);
        bounded += check<T>(h, 2);
        scale = Math<T>::exp(bound * bounded) + check<T>(h, 2);
    }

    void forward(V<T> x, V<T> &y, V<T> &log_slope) {
        y = x * scale + h[0];
        log_slope = bound * bounded;
    }

    void inverse(V<T> y, V<T> &x, V<T> &log_slope) {
        x = (y - h[0]) / scale;
        log_slope = -bound * bounded;
    }

    // Gradients of gy y + gl log_slope
    void pull(V<T> x, V<T> gy, V<T> gl, V<T> &gx, V<T> *gh) {
        gx = gy * scale;
        gh[0] = gy;
        gh[1] = (gy * x * scale + gl) * (T(1) - bounded * bounded);
    }
};

// --- Rational-quadratic spline --------------------------------------------------------------------

template <class T> struct SplineMap {
    const V<T> *h;
    int n_bins;
    bool circle;
    T bound, share;
    V<T> widths[MAX_BINS], heights[MAX_BINS];  // exp of the unnormalised ones
    V<T> sum_widths, sum_heights, poison;
    V<T> bin, left, width, bottom, height, slope0, slope1, of_slope0, of_slope1;  // the bin of x

    SplineMap(const Layer &layer, const V<T> *h)
        : h(h), n_bins(int((layer.n_parameters + 1) / 3)), circle(layer.kind == CIRCLE),
          bound(T(layer.bound)), share(T(1 - MIN_SHARE * n_bins)) {
        normalise(h, widths, sum_widths);
        normalise(h + n_bins, heights, sum_heights);
        poison = check<T>(h, layer.n_parameters);
    }

    void normalise(const V<T> *raw, V<T> *out, V<T> &sum) {
        V<T> top = raw[0];
        for (int k = 1; k < n_bins; ++k) top = Math<T>::maximum(top, raw[k]);
        sum = V<T>{};
        for (int k = 0; k < n_bins; ++k) sum += out[k] = Math<T>::exp(raw[k] - top);
    }

    // Which bin holds x, or y for the inverse
    void locate(V<T> x, bool inverse) {
        const T whole = T(2) * bound;
        const V<T> per_width = whole * share / sum_widths, per_height = whole * share / sum_heights;
        const T least = whole * T(MIN_SHARE);
        V<T> at_x = fill<T>(-bound), at_y = fill<T>(-bound), raw0, raw1;
        bin = V<T>{};
        for (int k = 0; k < n_bins; ++k) {
            const V<T> w = least + per_width * widths[k], t = least + per_height * heights[k];
            const auto here = k == 0 ? (x == x) | (x != x) : x >= (inverse ? at_y : at_x);
            const V<T> r0 = raw_slope(k), r1 = raw_slope(k + 1);
            bin = here ? fill<T>(k) : bin;
            left = here ? at_x : left;
            width = here ? w : width;
            bottom = here ? at_y : bottom;
            height = here ? t : height;
            raw0 = here ? r0 : raw0;
            raw1 = here ? r1 : raw1;
            at_x += w;
            at_y += t;
        }
        slope_of(raw0, slope0, of_slope0);
        slope_of(raw1, slope1, of_slope1);
        if (!circle) {
            fix_end(bin == T(0), slope0, of_slope0);
            fix_end(bin == T(n_bins - 1), slope1, of_slope1);
        }
    }

    // Unnormalised slope at knot k; the end knots of the line have none
    V<T> raw_slope(int k) {
        const V<T> *slopes = h + 2 * n_bins;
        if (circle) return slopes[k == n_bins ? 0 : k];
        return k == 0 || k == n_bins ? V<T>{} : slopes[k - 1];
    }

    void slope_of(V<T> raw, V<T> &slope, V<T> &derivative) {
        softplus<T>(raw + T(UNIT_SLOPE), slope, derivative);
        slope += T(MIN_SLOPE);
    }

    template <class Mask> void fix_end(Mask at_end, V<T> &slope, V<T> &derivative) {
        slope = at_end ? fill<T>(1) : slope;
        derivative = at_end ? V<T>{} : derivative;
    }

    // 0 to 1 over the bin
    V<T> clamp(V<T> xi) {
        xi = xi < T(0) ? V<T>{} : xi;
        return xi > T(1) ? fill<T>(1) : xi;
    }

    auto outside(V<T> x) {
        const T reach = circle ? T(INFINITY) : bound;
        return (x <= -reach) | (x >= reach);
    }

    void forward(V<T> x, V<T> &y, V<T> &log_slope) {
        const auto out = outside(x);
        const V<T> inside = out ? V<T>{} : x;
        locate(inside, false);
        evaluate(clamp((inside - left) / width), y, log_slope);
        y = out ? x : y;
        log_slope = out ? V<T>{} : log_slope;
    }

    void evaluate(V<T> xi, V<T> &y, V<T> &log_slope) {
        const V<T> s = height / width, m = xi * (T(1) - xi), rest = T(1) - xi;
        const V<T> d = s + (slope0 + slope1 - T(2) * s) * m;
        const V<T> q = slope1 * xi * xi + T(2) * s * m + slope0 * rest * rest;
        y = bottom + height * (s * xi * xi + slope0 * m) / d + poison;
        const V<T> ratio = s / d;
        log_slope = Math<T>::log(ratio * ratio * q) + (y - y) + poison;
    }

    void inverse(V<T> y, V<T> &x, V<T> &log_slope) {
        const auto out = outside(y);
        const V<T> inside = out ? V<T>{} : y;
        locate(inside, true);
        const V<T> s = height / width, c = slope0 + slope1 - T(2) * s, offset = inside - bottom;
        // Eqs. 6 to 8 of Durkan et al.: the root of a quadratic that lies in [0, 1]
        const V<T> a = offset * c + height * (s - slope0), b = height * slope0 - offset * c;
        const V<T> square = Math<T>::maximum(b * b + T(4) * a * s * offset, V<T>{});
        const V<T> xi = clamp(T(2) * s * offset / (b + Math<T>::root(square)));
        V<T> there;
        evaluate(xi, there, log_slope);
        x = out ? y : xi * width + left;
        log_slope = out ? V<T>{} : -log_slope;
    }

    // Gradients of gy y + gl log_slope
    void pull(V<T> x, V<T> gy, V<T> gl, V<T> &gx, V<T> *gh) {
        const auto out = outside(x);
        const V<T> inside = out ? V<T>{} : x, by_y = out ? V<T>{} : gy, by_l = out ? V<T>{} : gl;
        locate(inside, false);
        const V<T> xi = clamp((inside - left) / width), rest = T(1) - xi, m = xi * rest;
        const V<T> dm = T(1) - T(2) * xi, s = height / width, c = slope0 + slope1 - T(2) * s;
        const V<T> d = s + c * m, top = s * xi * xi + slope0 * m;
        const V<T> q = slope1 * xi * xi + T(2) * s * m + slope0 * rest * rest;
        // y = bottom + height top / d,  log_slope = 2 log s + log q - 2 log d
        const V<T> of_top = by_y * height / d, of_q = by_l / q;
        const V<T> of_d = -(of_top * top + T(2) * by_l) / d;
        const V<T> of_xi = of_top * (T(2) * s * xi + slope0 * dm) + of_d * c * dm +
                           of_q * T(2) * (slope1 * xi + s * dm - slope0 * rest);
        const V<T> of_s = of_top * xi * xi + of_d * (T(1) - T(2) * m) + of_q * T(2) * m +
                          T(2) * by_l / s;
        const V<T> of0 = of_top * m + of_d * m + of_q * rest * rest;
        const V<T> of1 = of_d * m + of_q * xi * xi;
        const V<T> of_left = -of_xi / width, of_width = of_left * xi - of_s * s / width;
        const V<T> of_height = by_y * top / d + of_s / width;
        gx = out ? gy : -of_left;
        pull_sizes(widths, sum_widths, of_left, of_width, gh);
        pull_sizes(heights, sum_heights, by_y, of_height, gh + n_bins);
        pull_slopes(of0 * of_slope0, of1 * of_slope1, gh + 2 * n_bins);
    }

    // Through cumulated sums (all bins left of x push its knot) and the softmax
    void pull_sizes(const V<T> *sizes, V<T> sum, V<T> of_knot, V<T> of_size, V<T> *g) {
        const V<T> inverse_sum = T(1) / sum;
        V<T> mean{};
        for (int k = 0; k < n_bins; ++k) {
            const V<T> of = bin > T(k) ? of_knot : (bin == T(k) ? of_size : V<T>{});
            mean += (g[k] = of) * sizes[k] * inverse_sum;
        }
        for (int k = 0; k < n_bins; ++k)
            g[k] = T(2) * bound * share * sizes[k] * inverse_sum * (g[k] - mean);
    }

    void pull_slopes(V<T> of0, V<T> of1, V<T> *g) {
        const int n = circle ? n_bins : n_bins - 1, first = circle ? 0 : 1;
        for (int k = 0; k < n; ++k) {
            const T knot = T(k + first);
            g[k] = (bin == knot ? of0 : V<T>{}) + (bin + T(1) == knot ? of1 : V<T>{});
        }
        // The last knot of the circle is the first
        if (circle) g[0] += bin == T(n_bins - 1) ? of1 : V<T>{};
    }
};

// --- Rows of entries ------------------------------------------------------------------------------

// A vector of entries out of all that move, row after row
template <class T> struct Entries {
    static constexpr int W = Lanes<T>::width;
    const int64_t n_parameters, first, count;
    int64_t rows[W], places[W];

    // Starts at entry `first`, which is the `moved[j]` of `row`; both go on with the entries
    Entries(const Layer &layer, int64_t first, int64_t n, int64_t &row, int64_t &j)
        : n_parameters(layer.n_parameters), first(first), count(n - first < W ? n - first : W) {
        for (int k = 0; k < count; ++k) {
            rows[k] = row;
            places[k] = row * layer.dim + layer.moved[j];
            if (++j == layer.n_moved) j = 0, ++row;
        }
        // Lanes without an entry repeat the first
        for (int k = int(count); k < W; ++k) rows[k] = rows[0], places[k] = places[0];
    }

    V<T> load(const T *x) const {
        V<T> out;
        for (int k = 0; k < W; ++k) out[k] = x[places[k]];
        return out;
    }

    V<T> load_rows(const T *x) const {
        V<T> out;
        for (int k = 0; k < W; ++k) out[k] = x[rows[k]];
        return out;
    }

    void load_parameters(const T *h, V<T> *out) const {
        const T *start[W];
        for (int k = 0; k < W; ++k) start[k] = h + (first + (k < count ? k : 0)) * n_parameters;
        for (int64_t p = 0; p < n_parameters; ++p)
            for (int k = 0; k < W; ++k) out[p][k] = start[k][p];
    }

    void store(V<T> value, T *x) const {
        for (int k = 0; k < count; ++k) x[places[k]] = value[k];
    }

    void add_rows(V<T> value, T *x) const {
        for (int k = 0; k < count; ++k) x[rows[k]] += value[k];
    }

    void store_parameters(const V<T> *value, T *h) const {
        for (int k = 0; k < count; ++k)
            for (int64_t p = 0; p < n_parameters; ++p) h[(first + k) * n_parameters + p] = value[p][k];
    }
};

constexpr int MAX_PARAMETERS = 3 * MAX_BINS;

template <class T, class Visit> void each(const Layer &layer, int64_t n_rows, const T *h, Visit visit) {
    V<T> parameters[MAX_PARAMETERS];
    const int64_t n = n_rows * layer.n_moved;
    int64_t row = 0, j = 0;
    for (int64_t first = 0; first < n; first += Lanes<T>::width) {
        const Entries<T> entries(layer, first, n, row, j);
        entries.load_parameters(h, parameters);
        if (layer.kind == AFFINE) {
            AffineMap<T> map(layer, parameters);
            visit(entries, map);
        } else {
            SplineMap<T> map(layer, parameters);
            visit(entries, map);
        }
    }
}

// y and log_det (n) of x, or of the inverse; entries that stay are copied
template <class T>
void move(const Layer &layer, int64_t n, bool inverse, const T *x, const T *h, T *y, T *log_det) {
    std::memcpy(y, x, sizeof(T) * n * layer.dim);
    std::memset(log_det, 0, sizeof(T) * n);
    each<T>(layer, n, h, [&](const Entries<T> &entries, auto &map) {
        V<T> out, log_slope;
        if (inverse)
            map.inverse(entries.load(x), out, log_slope);
        else
            map.forward(entries.load(x), out, log_slope);
        entries.store(out, y);
        entries.add_rows(log_slope, log_det);
    });
}

// Gradients of gy y + gl log_det by x and h. Of the inverse, x is its result and gy, gl are those
// of the result; gx is then by its argument
template <class T>
void pull(const Layer &layer, int64_t n, bool inverse, const T *x, const T *h, const T *gy,
          const T *gl, T *gx, T *gh) {
    std::memcpy(gx, gy, sizeof(T) * n * layer.dim);
    each<T>(layer, n, h, [&](const Entries<T> &entries, auto &map) {
        const V<T> at = entries.load(x);
        V<T> by_y = entries.load(gy), by_l = entries.load_rows(gl), by_x;
        V<T> by_h[MAX_PARAMETERS];
        if (inverse) {
            V<T> y, log_slope, curvature;
            map.forward(at, y, log_slope);
            map.pull(at, V<T>{}, fill<T>(1), curvature, by_h);
            by_l = -by_l;
            by_y = -(by_y + by_l * curvature) * Math<T>::exp(-log_slope);
            map.pull(at, by_y, by_l, by_x, by_h);
            by_x = -by_y;
        } else {
            map.pull(at, by_y, by_l, by_x, by_h);
        }
        entries.store(by_x, gx);
        entries.store_parameters(by_h, gh);
    });
}

// Gradient of the log-density after the map from that before, and what the parameters add to it
template <class T>
void push(const Layer &layer, int64_t n, const T *x, const T *h, const T *score, T *pushed,
          T *added) {
    std::memcpy(pushed, score, sizeof(T) * n * layer.dim);
    each<T>(layer, n, h, [&](const Entries<T> &entries, auto &map) {
        const V<T> at = entries.load(x);
        V<T> y, log_slope, curvature, by_x, by_h[MAX_PARAMETERS];
        map.forward(at, y, log_slope);
        map.pull(at, V<T>{}, fill<T>(1), curvature, by_h);
        const V<T> after = (entries.load(score) - curvature) * Math<T>::exp(-log_slope);
        map.pull(at, after, fill<T>(1), by_x, by_h);
        for (int64_t p = 0; p < layer.n_parameters; ++p) by_h[p] = -by_h[p];
        entries.store(after, pushed);
        entries.store_parameters(by_h, added);
    });
}

}  // namespace

#define EXPORT(T, name)                                                                            \
    extern "C" void move_##name(const Layer *layer, int64_t n, bool inverse, const T *x,           \
                                const T *h, T *y, T *log_det) {                                    \
        move<T>(*layer, n, inverse, x, h, y, log_det);                                             \
    }                                                                                              \
    extern "C" void pull_##name(const Layer *layer, int64_t n, bool inverse, const T *x,           \
                                const T *h, const T *gy, const T *gl, T *gx, T *gh) {              \
        pull<T>(*layer, n, inverse, x, h, gy, gl, gx, gh);                                         \
    }                                                                                              \
    extern "C" void push_##name(const Layer *layer, int64_t n, const T *x, const T *h,             \
                                const T *score, T *pushed, T *added) {                             \
        push<T>(*layer, n, x, h, score, pushed, added);                                            \
    }

EXPORT(float, float32)
EXPORT(double, float64)
