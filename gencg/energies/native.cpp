// Energies and gradients of a molecular force field, one configuration per lane of a vector.
//
// The terms and their formulas are those of the torch modules of the same names, with gradients by
// hand. A block of as many configurations as a vector has lanes goes through all terms while its
// positions stay in the cache; lanes never meet, so that a result does not depend on its
// neighbours in the batch. Every pair is visited once for both of its atoms. What is kept of a pair
// is its descreening slopes, so that memory is that of one block per thread. Lengths in nm,
// energies in kJ/mol.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "vectors.hpp"

namespace {

constexpr double TINY = 1e-24;              // as in bonded.py
constexpr double MINIMUM_DISTANCE = 2e-3;   // as in frame.py

// --- A block of configurations ------------------------------------------------------------------

// One term of the force field; what index and values hold stands at its function
template <class T> struct Term {
    int64_t kind, n_rows, width, flags;
    const int64_t *index;
    const T *values;
    const T *table;
};

template <class T> struct Triple {
    using V = Vector<T>;
    V x, y, z;

    Triple operator+(const Triple &b) const { return {x + b.x, y + b.y, z + b.z}; }
    Triple operator-(const Triple &b) const { return {x - b.x, y - b.y, z - b.z}; }
    Triple operator*(V s) const { return {x * s, y * s, z * s}; }
};

template <class T> Vector<T> dot(const Triple<T> &a, const Triple<T> &b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class T> Triple<T> cross(const Triple<T> &a, const Triple<T> &b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Compensated (Kahan): thousands of terms in float32 lose no more than one does
template <class T> struct Sum {
    using V = Vector<T>;
    V total = V{}, lost = V{};

    void add(V value) {
        const V corrected = value - lost, sum = total + corrected;
        lost = (sum - total) - corrected;
        total = sum;
    }
};

template <class T> struct Block {
    using V = Vector<T>;
    int64_t n_atoms;
    Triple<T> *x, *gradient;
    V *scratch;
    Sum<T> energy;

    void add(V value) { energy.add(value); }

    void push(int64_t atom, const Triple<T> &force) { gradient[atom] = gradient[atom] + force; }
    void pull(int64_t atom, const Triple<T> &force) { gradient[atom] = gradient[atom] - force; }
};

// --- Bonded terms ---------------------------------------------------------------------------------

// index (i, j), values (r0, k / 2)
template <class T, bool GRADIENT> void bonds(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t i = term.index[2 * row], j = term.index[2 * row + 1];
        const T r0 = term.values[2 * row], half_k = term.values[2 * row + 1];
        const Triple<T> d = block.x[j] - block.x[i];
        const auto r = Math<T>::root(dot(d, d) + T(TINY));
        const auto stretch = r - r0;
        block.add(half_k * stretch * stretch);
        if (GRADIENT) {
            const Triple<T> g = d * (T(2) * half_k * stretch / r);
            block.push(j, g);
            block.pull(i, g);
        }
    }
}

// The legs u, v of an angle from its apex, and how a slope along it reaches the atoms
template <class T> struct Angle {
    using V = Vector<T>;
    Triple<T> u, v, normal;
    V sine, cosine;  // times the lengths of both legs

    Angle(const Block<T> &block, const int64_t *atoms)
        : u(block.x[atoms[0]] - block.x[atoms[1]]), v(block.x[atoms[2]] - block.x[atoms[1]]),
          normal(cross(u, v)) {
        sine = Math<T>::root(dot(normal, normal) + T(TINY));
        cosine = dot(u, v);
    }

    V angle() const { return Math<T>::atan2(sine, cosine); }

    // A slope along the angle and others along the lengths of the legs, each over its length
    void push(Block<T> &block, const int64_t *atoms, V slope, V along_u, V along_v) const {
        const V scaled = slope / (sine * sine + cosine * cosine);
        const V along_sine = scaled * cosine / sine, along_cosine = -scaled * sine;
        push_legs(block, atoms, cross(v, normal) * along_sine + v * along_cosine + u * along_u,
                  cross(normal, u) * along_sine + u * along_cosine + v * along_v);
    }

    static void push_legs(Block<T> &block, const int64_t *atoms, const Triple<T> &gu,
                          const Triple<T> &gv) {
        block.push(atoms[0], gu);
        block.push(atoms[2], gv);
        block.pull(atoms[1], gu + gv);
    }
};

// index (i, j, k) with j the apex, values (theta0, k / 2)
template <class T, bool GRADIENT> void angles(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 3 * row;
        const T theta0 = term.values[2 * row], half_k = term.values[2 * row + 1];
        const Angle<T> angle(block, atoms);
        const auto bend = angle.angle() - theta0;
        block.add(half_k * bend * bend);
        if (GRADIENT) angle.push(block, atoms, T(2) * half_k * bend, Vector<T>{}, Vector<T>{});
    }
}

// Cosine and sine of a dihedral angle, and how a slope along them reaches the atoms
template <class T> struct Dihedral {
    using V = Vector<T>;
    Triple<T> first, axis, last, m, n;
    V mm, nn, inverse, length, triple, cosine, sine;

    Dihedral(const Block<T> &block, const int64_t *atoms)
        : first(block.x[atoms[1]] - block.x[atoms[0]]), axis(block.x[atoms[2]] - block.x[atoms[1]]),
          last(block.x[atoms[3]] - block.x[atoms[2]]), m(cross(first, axis)), n(cross(axis, last)) {
        mm = dot(m, m);
        nn = dot(n, n);
        inverse = Math<T>::inverse_root(mm * nn + T(TINY));
        cosine = dot(m, n) * inverse;
        length = Math<T>::root(dot(axis, axis) + T(TINY));
        triple = dot(first, n);
        sine = triple * length * inverse;
    }

    V angle() const { return Math<T>::atan2(sine, cosine); }

    void push(Block<T> &block, const int64_t *atoms, V along_cosine, V along_sine) const {
        // cosine = m n inverse, sine = (first n) length inverse, inverse = (m^2 n^2)^(-1/2)
        const V common = (along_cosine * cosine + along_sine * sine) * inverse * inverse;
        const V c = along_cosine * inverse, s = along_sine * inverse;
        const Triple<T> gm = n * c - m * (common * nn);
        const Triple<T> gn = m * c - n * (common * mm) + first * (s * length);
        const Triple<T> g_first = cross(axis, gm) + n * (s * length);
        const Triple<T> g_axis = cross(gm, first) + cross(last, gn) + axis * (s * triple / length);
        const Triple<T> g_last = cross(gn, axis);
        block.pull(atoms[0], g_first);
        block.push(atoms[1], g_first - g_axis);
        block.push(atoms[2], g_axis - g_last);
        block.push(atoms[3], g_last);
    }

    // The same for a slope along the angle itself
    void push_angle(Block<T> &block, const int64_t *atoms, V slope) const {
        const V scaled = slope / (sine * sine + cosine * cosine);
        push(block, atoms, -scaled * sine, scaled * cosine);
    }
};

// Clenshaw's b_1, b_2 and their derivatives: sum_n a_n cos(n phi) = a_0 + x b_1 - b_2 and
// sum_n a_n sin(n phi) = sin(phi) b_1 at x = cos(phi)
template <class T> struct Series {
    using V = Vector<T>;
    V b1 = V{}, b2 = V{}, d1 = V{}, d2 = V{};

    Series(const T *coefficients, int64_t order, V x) {
        for (int64_t n = order; n > 0; --n) {
            const V d = T(2) * (b1 + x * d1) - d2;
            const V b = coefficients[n] + T(2) * x * b1 - b2;
            d2 = d1, d1 = d, b2 = b1, b1 = b;
        }
    }
};

// index (i, j, k, l), values (a_0 .. a_N, b_0 .. b_N), width N + 1, flags 1 if any b
template <class T, bool GRADIENT> void fourier_torsions(Block<T> &block, const Term<T> &term) {
    const int64_t width = term.width;
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 4 * row;
        const T *cosines = term.values + 2 * width * row, *sines = cosines + width;
        const Dihedral<T> dihedral(block, atoms);
        const auto c = dihedral.cosine;
        const Series<T> even(cosines, width - 1, c);
        auto energy = cosines[0] + c * even.b1 - even.b2;
        auto along_cosine = even.b1 + c * even.d1 - even.d2, along_sine = Vector<T>{};
        if (term.flags) {
            const Series<T> odd(sines, width - 1, c);
            energy += dihedral.sine * odd.b1;
            along_cosine += dihedral.sine * odd.d1;
            along_sine = odd.b1;
        }
        block.add(energy);
        if (GRADIENT) dihedral.push(block, atoms, along_cosine, along_sine);
    }
}

// index (i, j, k, l), values (phi0, k, 2 pi if on the circle else 0)
template <class T, bool GRADIENT> void harmonic_torsions(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 4 * row;
        const T *values = term.values + 3 * row;
        const Dihedral<T> dihedral(block, atoms);
        auto turn = dihedral.angle() - values[0];
        // The difference lies within one turn and a half on either side
        if (values[2] != 0) {
            turn = turn > T(PI) ? turn - values[2] : turn;
            turn = turn < T(-PI) ? turn + values[2] : turn;
        }
        block.add(values[1] * turn * turn);
        if (GRADIENT) dihedral.push_angle(block, atoms, T(2) * values[1] * turn);
    }
}

// index (two quadruples, size of the map, its first patch), table 16 coefficients per patch
template <class T, bool GRADIENT> void correction_maps(Block<T> &block, const Term<T> &term) {
    using V = Vector<T>;
    constexpr int W = Lanes<T>::width;
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 10 * row, size = atoms[8], start = atoms[9];
        const Dihedral<T> first(block, atoms), second(block, atoms + 4);
        const T per_radian = T(size / (2 * PI));
        const V along = first.angle() * per_radian, across = second.angle() * per_radian;
        V s, t, c[16];
        for (int k = 0; k < W; ++k) {
            // Not finite stays so in s and t, and reads the first patch
            const T a = std::floor(along[k]), b = std::floor(across[k]);
            s[k] = along[k] - a;
            t[k] = across[k] - b;
            const bool finite = std::isfinite(a) && std::isfinite(b);
            const int64_t i = finite ? ((int64_t)a % size + size) % size : 0;
            const int64_t j = finite ? ((int64_t)b % size + size) % size : 0;
            const T *patch = term.table + 16 * (start + i * size + j);
            for (int l = 0; l < 16; ++l) c[l][k] = patch[l];
        }
        V value = V{}, along_s = V{}, along_t = V{};
        for (int k = 12; k >= 0; k -= 4) {
            const V rung = c[k] + t * (c[k + 1] + t * (c[k + 2] + t * c[k + 3]));
            const V slope = c[k + 1] + t * (T(2) * c[k + 2] + t * T(3) * c[k + 3]);
            along_s = value + s * along_s;
            value = rung + s * value;
            along_t = slope + s * along_t;
        }
        block.add(value);
        if (GRADIENT) {
            first.push_angle(block, atoms, along_s * per_radian);
            second.push_angle(block, atoms + 4, along_t * per_radian);
        }
    }
}

// --- Pairs ------------------------------------------------------------------------------------------

// A pair of atoms: the vector from j to i and its squared length, kept away from zero
template <class T> struct Pair {
    using V = Vector<T>;
    Triple<T> d;
    V squared, r2;

    Pair(const Triple<T> &a, const Triple<T> &b) : d(a - b) {
        constexpr T least = T(MINIMUM_DISTANCE * MINIMUM_DISTANCE);
        squared = dot(d, d);
        r2 = squared < least ? Math<T>::fill(least) : squared;
    }

    // Below the least distance the energy is constant
    V moving(V slope) const {
        constexpr T least = T(MINIMUM_DISTANCE * MINIMUM_DISTANCE);
        return squared < least ? V{} : slope;
    }
};

// Coulomb and Lennard-Jones energy of a pair; `slope` gets 2 dU / d(r^2)
template <class T>
inline Vector<T> table_energy(const T *table, Vector<T> inverse, Vector<T> &slope) {
    const auto i2 = inverse * inverse, i6 = i2 * i2 * i2;
    const auto coulomb = table[0] * inverse, repulsion = table[1] * i6 * i6, attraction = table[2] * i6;
    slope = (T(6) * attraction - T(12) * repulsion - coulomb) * i2;
    return coulomb + repulsion - attraction;
}

// table (k q_i q_j, A, B) of all pairs i < j
template <class T, bool GRADIENT> void pairs(Block<T> &block, const Term<T> &term) {
    using V = Vector<T>;
    const T *table = term.table;
    for (int64_t i = 0; i < block.n_atoms; ++i) {
        const Triple<T> xi = block.x[i];
        Triple<T> g{};
        Sum<T> row;
        for (int64_t j = i + 1; j < block.n_atoms; ++j, table += 3) {
            const Pair<T> pair(xi, block.x[j]);
            V slope;
            row.add(table_energy(table, Math<T>::inverse_root(pair.r2), slope));
            if (GRADIENT) {
                const Triple<T> force = pair.d * pair.moving(slope);
                g = g + force;
                block.pull(j, force);
            }
        }
        block.add(row.total);
        if (GRADIENT) block.push(i, g);
    }
}

// --- MMFF94: constants as in mmff_terms.py -----------------------------------------------------------

constexpr double CUBIC_STRETCH = -20.0, QUARTIC_STRETCH = 7.0 / 12.0 * CUBIC_STRETCH * CUBIC_STRETCH;
constexpr double CUBIC_BEND = -0.006981317 * 180.0 / PI, BUFFER = 0.005;

// index (i, j), values (r0, k / 2)
template <class T, bool GRADIENT> void quartic_bonds(Block<T> &block, const Term<T> &term) {
    constexpr T c = T(CUBIC_STRETCH), q = T(QUARTIC_STRETCH);
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t i = term.index[2 * row], j = term.index[2 * row + 1];
        const T r0 = term.values[2 * row], half_k = term.values[2 * row + 1];
        const Triple<T> d = block.x[j] - block.x[i];
        const auto r = Math<T>::root(dot(d, d) + T(TINY));
        const auto stretch = r - r0;
        block.add(half_k * stretch * stretch * (T(1) + stretch * (c + q * stretch)));
        if (GRADIENT) {
            const auto slope = half_k * stretch * (T(2) + stretch * (T(3) * c + T(4) * q * stretch));
            const Triple<T> g = d * (slope / r);
            block.push(j, g);
            block.pull(i, g);
        }
    }
}

// index (i, j, k) with j the apex, values (theta0, k / 2)
template <class T, bool GRADIENT> void cubic_angles(Block<T> &block, const Term<T> &term) {
    constexpr T c = T(CUBIC_BEND);
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 3 * row;
        const T theta0 = term.values[2 * row], half_k = term.values[2 * row + 1];
        const Angle<T> angle(block, atoms);
        const auto bend = angle.angle() - theta0;
        block.add(half_k * bend * bend * (T(1) + c * bend));
        if (GRADIENT) {
            const auto slope = half_k * bend * (T(2) + T(3) * c * bend);
            angle.push(block, atoms, slope, Vector<T>{}, Vector<T>{});
        }
    }
}

// index (i, j, k) with j the apex, values (k)
template <class T, bool GRADIENT> void linear_angles(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 3 * row;
        const T k = term.values[row];
        const Triple<T> u = block.x[atoms[0]] - block.x[atoms[1]];
        const Triple<T> v = block.x[atoms[2]] - block.x[atoms[1]];
        const auto uu = dot(u, u), vv = dot(v, v);
        const auto inverse = Math<T>::inverse_root(uu * vv + T(TINY)), cosine = dot(u, v) * inverse;
        block.add(k * (T(1) + cosine));
        if (GRADIENT) {
            const auto along = k * inverse, common = along * cosine * inverse;
            Angle<T>::push_legs(block, atoms, v * along - u * (common * vv), u * along - v * (common * uu));
        }
    }
}

// index (i, j, k) with j the apex, values (theta0, r10, r20, k1, k2)
template <class T, bool GRADIENT> void stretch_bends(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 3 * row;
        const T *values = term.values + 5 * row;
        const Angle<T> angle(block, atoms);
        const auto r1 = Math<T>::root(dot(angle.u, angle.u) + T(TINY));
        const auto r2 = Math<T>::root(dot(angle.v, angle.v) + T(TINY));
        const auto bend = angle.angle() - values[0];
        const auto pull = values[3] * (r1 - values[1]) + values[4] * (r2 - values[2]);
        block.add(pull * bend);
        if (GRADIENT) angle.push(block, atoms, pull, values[3] * bend / r1, values[4] * bend / r2);
    }
}

// index (i, j, k, l) with j the centre and l out of the plane, values (k / 2)
template <class T, bool GRADIENT> void wilson_angles(Block<T> &block, const Term<T> &term) {
    for (int64_t row = 0; row < term.n_rows; ++row) {
        const int64_t *atoms = term.index + 4 * row;
        const T half_k = term.values[row];
        const Triple<T> u = block.x[atoms[0]] - block.x[atoms[1]];
        const Triple<T> v = block.x[atoms[2]] - block.x[atoms[1]];
        const Triple<T> l = block.x[atoms[3]] - block.x[atoms[1]];
        const Triple<T> n = cross(u, v), m = cross(n, l);
        const auto sine = dot(n, l), cosine = Math<T>::root(dot(m, m) + T(TINY));
        const auto chi = Math<T>::atan2(sine, cosine);
        block.add(half_k * chi * chi);
        if (GRADIENT) {
            const auto scaled = T(2) * half_k * chi / (sine * sine + cosine * cosine);
            const auto along_sine = scaled * cosine, along_m = -scaled * sine / cosine;
            const Triple<T> gn = l * along_sine + cross(l, m) * along_m;
            const Triple<T> gl = n * along_sine + cross(m, n) * along_m;
            const Triple<T> gu = cross(v, gn), gv = cross(gn, u);
            block.push(atoms[0], gu);
            block.push(atoms[2], gv);
            block.push(atoms[3], gl);
            block.pull(atoms[1], gu + gv + gl);
        }
    }
}

// table (k q_i q_j, 1 / R, depth) of all pairs i < j
template <class T, bool GRADIENT> void buffered_pairs(Block<T> &block, const Term<T> &term) {
    using V = Vector<T>;
    const T *table = term.table;
    for (int64_t i = 0; i < block.n_atoms; ++i) {
        const Triple<T> xi = block.x[i];
        Triple<T> g{};
        Sum<T> row;
        for (int64_t j = i + 1; j < block.n_atoms; ++j, table += 3) {
            const Pair<T> pair(xi, block.x[j]);
            const V r = Math<T>::root(pair.r2), q = r * table[1];
            const V q2 = q * q, q6 = q2 * q2 * q2;
            const V inverse = T(1) / (r + T(BUFFER)), near = T(1) / (q + T(0.07));
            const V far = T(1) / (q6 * q + T(0.12));
            const V t = T(1.07) * near, t2 = t * t, wall = table[2] * (t2 * t2 * t2 * t);
            const V inner = T(1.12) * far - T(2), coulomb = table[0] * inverse;
            row.add(coulomb + wall * inner);
            if (GRADIENT) {
                const V along_q = T(-7) * wall * (near * inner + T(1.12) * q6 * far * far);
                const V slope = (along_q * table[1] - coulomb * inverse) / r;
                const Triple<T> force = pair.d * pair.moving(slope);
                g = g + force;
                block.pull(j, force);
            }
        }
        block.add(row.total);
        if (GRADIENT) block.push(i, g);
    }
}

// --- Generalised Born -------------------------------------------------------------------------------

// What generalised Born holds of an atom and of the model
template <class T> struct BornAtom {
    T charge, rho, inverse_rho, inverse_radius, scaled, surface, alpha, beta, gamma;
};

template <class T> struct BornModel {
    T inside, outside, kappa, least_inverse_radius;
};

enum BornFlags { TANH = 1, NECK = 2, BURIED = 4, SURFACE = 8 };

// Descreening H(r; rho, s), added to `integral`; returns dH/dr
template <class T>
inline Vector<T> descreen(Vector<T> r, Vector<T> inverse, T rho, T scaled, bool buried,
                          T inverse_rho, Vector<T> &integral) {
    using V = Vector<T>;
    const V upper = r + scaled, distance = r - scaled;
    const V lower = Math<T>::maximum(Math<T>::absolute(distance), Math<T>::fill(rho));
    const V product = T(1) / (upper * lower), l = upper * product, u = lower * product;
    const V difference = l - u, sum = l + u, s2 = scaled * scaled * inverse;
    const V logarithm = T(0.25) * inverse * Math<T>::log(lower * u);
    V value = difference * (T(0.5) - T(0.125) * (r - s2) * sum) + logarithm;
    // The limits do not contribute: H is stationary in upper = r + s and in lower = r - s
    V slope = -inverse * (T(0.125) * (r + s2) * difference * sum + logarithm);
    const auto inside = distance < -rho;
    // In lower = s - r it is not, unless the correction for buried atoms is there
    if (buried)
        value += inside ? inverse_rho - l : V{};
    else
        slope += inside ? l * l : V{};
    const auto touching = upper > rho;
    integral += touching ? value : V{};
    return touching ? slope : V{};
}

// Neck integral m / (1 + 100 d^2 + 3e5 d^6), d = r - r0, added to `integral`; returns its slope
template <class T>
inline Vector<T> neck(Vector<T> r, T depth, T position, T reach, Vector<T> &integral) {
    const auto d = r - position, d2 = d * d, d4 = d2 * d2;
    const auto inverse = T(1) / (T(1) + T(100) * d2 + T(3e5) * d4 * d2);
    const auto value = depth * inverse;
    const auto within = r < reach;
    integral += within ? value : Vector<T>{};
    return within ? -value * inverse * d * (T(200) + T(1.8e6) * d4) : Vector<T>{};
}

// values (model, atoms, necks of all pairs i < j), table as for `pairs` or null
template <class T, bool GRADIENT> void generalized_born(Block<T> &block, const Term<T> &term) {
    using V = Vector<T>;
    const int64_t n = block.n_atoms, flags = term.flags;
    const auto &model = *reinterpret_cast<const BornModel<T> *>(term.values);
    const auto *atoms = reinterpret_cast<const BornAtom<T> *>(term.values + 4);
    const T *necks = reinterpret_cast<const T *>(atoms + n);
    V *integral = block.scratch, *inverse_born = integral + n, *born = inverse_born + n;
    V *along_born = born + n, *along_integral = along_born + n, *slopes = along_integral + n;

    for (int64_t i = 0; i < n; ++i) integral[i] = along_born[i] = V{};
    V *slope = slopes;
    for (int64_t i = 0; i < n; ++i) {
        const Triple<T> xi = block.x[i];
        const BornAtom<T> a = atoms[i];
        V sum = V{};
        for (int64_t j = i + 1; j < n; ++j, slope += 2) {
            const BornAtom<T> &b = atoms[j];
            const Pair<T> pair(xi, block.x[j]);
            const V inverse = Math<T>::inverse_root(pair.r2), r = pair.r2 * inverse;
            V other = integral[j];
            const bool buried = flags & BURIED;
            V ij = descreen<T>(r, inverse, a.rho, b.scaled, buried, a.inverse_rho, sum);
            V ji = descreen<T>(r, inverse, b.rho, a.scaled, buried, b.inverse_rho, other);
            if (flags & NECK) {
                ij += neck<T>(r, necks[0], necks[1], necks[4], sum);
                ji += neck<T>(r, necks[2], necks[3], necks[4], other);
                necks += 5;
            }
            integral[j] = other;
            if (GRADIENT) {
                slope[0] = pair.moving(ij * inverse);
                slope[1] = pair.moving(ji * inverse);
            }
        }
        integral[i] += sum;
    }

    // 1 / B of every atom, and for now d(1 / B) / dI
    for (int64_t i = 0; i < n; ++i) {
        const BornAtom<T> &a = atoms[i];
        if (flags & TANH) {
            const V psi = integral[i] * a.rho;
            const V bend = Math<T>::tanh(psi * (a.alpha + psi * (a.beta + psi * a.gamma)));
            inverse_born[i] = a.inverse_rho - bend * a.inverse_radius;
            along_integral[i] = -(T(1) - bend * bend) * (a.rho * a.inverse_radius) *
                                (a.alpha + psi * (T(2) * a.beta + psi * (T(3) * a.gamma)));
        } else {
            const V free = a.inverse_rho - integral[i];
            const auto bounded = free < model.least_inverse_radius;
            inverse_born[i] = bounded ? Math<T>::fill(model.least_inverse_radius) : free;
            along_integral[i] = bounded ? V{} : Math<T>::fill(-1);
        }
        born[i] = T(1) / inverse_born[i];
    }

    const T *table = term.table;
    for (int64_t i = 0; i < n; ++i) {
        const Triple<T> xi = block.x[i];
        const V bi = born[i], ci = inverse_born[i];
        const T qi = atoms[i].charge;
        Triple<T> g{};
        Sum<T> row;
        V along = V{};
        for (int64_t j = i + 1; j < n; ++j) {
            const Pair<T> pair(xi, block.x[j]);
            const V bj = born[j];
            const V ratio = T(0.25) * pair.r2 * (ci * inverse_born[j]);
            const V decay = Math<T>::exp(-ratio);
            const V inverse_f = Math<T>::inverse_root(pair.r2 + bi * bj * decay);
            V screening = Math<T>::fill(model.inside - model.outside), extra = V{};
            if (model.kappa != 0) {
                const V screened = model.outside * Math<T>::exp(-model.kappa / inverse_f);
                screening = model.inside - screened;
                extra = model.kappa * screened;
            }
            const V charge = (qi * atoms[j].charge) * inverse_f;
            // 2 dU / d(f^2), with U = -q q (screening) / f
            const V slope_f = charge * inverse_f * (screening * inverse_f - extra);
            V energy = -charge * screening;
            V slope_r = slope_f * (T(1) - T(0.25) * decay);
            if (table) {
                V direct;
                energy += table_energy(table, Math<T>::inverse_root(pair.r2), direct);
                slope_r += direct;
                table += 3;
            }
            row.add(energy);
            if (GRADIENT) {
                const Triple<T> force = pair.d * pair.moving(slope_r);
                g = g + force;
                block.pull(j, force);
                const V common = T(0.5) * slope_f * decay * (T(1) + ratio);
                along += common * bj;
                along_born[j] += common * bi;
            }
        }
        // An atom with itself: f = B
        V screening = Math<T>::fill(model.inside - model.outside), extra = V{};
        if (model.kappa != 0) {
            const V screened = model.outside * Math<T>::exp(-model.kappa * bi);
            screening = model.inside - screened;
            extra = model.kappa * screened;
        }
        const V charge = T(0.5) * qi * qi * ci;
        row.add(-charge * screening);
        along += charge * (screening * ci - extra);
        const V c3 = ci * ci * ci;
        if (flags & SURFACE) {
            row.add(atoms[i].surface * c3 * c3);
            along -= T(6) * atoms[i].surface * c3 * c3 * ci;
        }
        block.add(row.total);
        if (GRADIENT) {
            block.push(i, g);
            along_integral[i] *= -bi * bi * (along + along_born[i]);
        }
    }
    if (!GRADIENT) return;

    slope = slopes;
    for (int64_t i = 0; i < n; ++i) {
        const Triple<T> xi = block.x[i];
        const V along = along_integral[i];
        Triple<T> g{};
        for (int64_t j = i + 1; j < n; ++j, slope += 2) {
            const Triple<T> force = (xi - block.x[j]) * (along * slope[0] + along_integral[j] * slope[1]);
            g = g + force;
            block.pull(j, force);
        }
        block.push(i, g);
    }
}

// --- All terms, all blocks ----------------------------------------------------------------------

template <class T, bool GRADIENT> void evaluate_block(Block<T> &block, const Term<T> *terms, int64_t n_terms) {
    using Kernel = void (*)(Block<T> &, const Term<T> &);
    static constexpr Kernel kernels[] = {
        bonds<T, GRADIENT>,           angles<T, GRADIENT>,          fourier_torsions<T, GRADIENT>,
        harmonic_torsions<T, GRADIENT>, correction_maps<T, GRADIENT>, pairs<T, GRADIENT>,
        generalized_born<T, GRADIENT>, quartic_bonds<T, GRADIENT>,   cubic_angles<T, GRADIENT>,
        linear_angles<T, GRADIENT>,   stretch_bends<T, GRADIENT>,   wilson_angles<T, GRADIENT>,
        buffered_pairs<T, GRADIENT>,  buffered_pairs<T, GRADIENT>,
    };
    for (int64_t k = 0; k < n_terms; ++k) kernels[terms[k].kind](block, terms[k]);
}

template <class T>
bool evaluate_blocks(const Term<T> *terms, int64_t n_terms, int64_t n_atoms, int64_t n_scratch,
                     int64_t n, const T *x, T *energy, T *gradient, std::atomic<int64_t> &next) {
    using V = Vector<T>;
    constexpr int W = Lanes<T>::width;
    const int64_t size = 3 * n_atoms;
    auto *memory = static_cast<V *>(std::aligned_alloc(BYTES, (2 * size + n_scratch) * sizeof(V)));
    if (!memory) return false;
    for (int64_t from = W * next++; from < n; from = W * next++) {
        const int64_t count = n - from < W ? n - from : W;
        for (int64_t k = 0; k < size; ++k)
            for (int lane = 0; lane < W; ++lane)
                memory[k][lane] = x[(from + (lane < count ? lane : count - 1)) * size + k];
        auto *positions = reinterpret_cast<Triple<T> *>(memory);
        Block<T> block{n_atoms, positions, positions + n_atoms, memory + 2 * size, {}};
        if (gradient) {
            std::memset(static_cast<void *>(memory + size), 0, size * sizeof(V));
            evaluate_block<T, true>(block, terms, n_terms);
        } else {
            evaluate_block<T, false>(block, terms, n_terms);
        }
        for (int lane = 0; lane < count; ++lane) {
            energy[from + lane] = block.energy.total[lane];
            if (gradient)
                for (int64_t k = 0; k < size; ++k)
                    gradient[(from + lane) * size + k] = memory[size + k][lane];
        }
    }
    std::free(memory);
    return true;
}

template <class T>
bool evaluate(const Term<T> *terms, int64_t n_terms, int64_t n_atoms, int64_t n_scratch, int64_t n,
              const T *x, T *energy, T *gradient, int64_t n_threads) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> done{true};
    const auto work = [&] {
        if (!evaluate_blocks(terms, n_terms, n_atoms, n_scratch, n, x, energy, gradient, next))
            done = false;
    };
    std::vector<std::thread> others;
    for (int64_t k = 1; k < n_threads; ++k) others.emplace_back(work);
    work();
    for (auto &thread : others) thread.join();
    return done;
}

} // namespace

extern "C" {

// Energies (n) and, unless null, gradients (n, n_atoms, 3) of positions (n, n_atoms, 3); false
// where there is no memory for a block
bool evaluate_float32(const Term<float> *terms, int64_t n_terms, int64_t n_atoms, int64_t n_scratch,
                      int64_t n, const float *x, float *energy, float *gradient, int64_t n_threads) {
    return evaluate(terms, n_terms, n_atoms, n_scratch, n, x, energy, gradient, n_threads);
}

bool evaluate_float64(const Term<double> *terms, int64_t n_terms, int64_t n_atoms, int64_t n_scratch,
                      int64_t n, const double *x, double *energy, double *gradient, int64_t n_threads) {
    return evaluate(terms, n_terms, n_atoms, n_scratch, n, x, energy, gradient, n_threads);
}

// Numbers in a vector: configurations in a block
int64_t lanes_float32() { return Lanes<float>::width; }
int64_t lanes_float64() { return Lanes<double>::width; }
}
