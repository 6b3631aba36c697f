/* Fake-quantization of float32 memory on a CPU: each tensor is read once and written once.

   A tensor is `channels` rows of `width` elements in memory order, with one scale s (and zero-point z,
   where it is not NULL) a row. Comparisons are written so that NaN takes the way it takes in
   range_quantize.py, whose formulas these are; both round alike, element by element. Sums run in
   float over SPAN elements and in double over those, so they depend on no number of threads.

   Legend: v input, g incoming gradient, dv and ds outgoing ones, [lo, hi] codes. */

#include <math.h>
#include <stdint.h>

#define SPAN 4096
#define ACROSS _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
#define COUNTING \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1) reduction(+ : changed)")
#define LANES _Pragma("omp simd")
#define LANES_SUM _Pragma("omp simd reduction(+ : sum)")

typedef struct { int64_t row, begin, end; } span;

static int64_t spans(int64_t width) { return (width + SPAN - 1) / SPAN; }

static span nth_span(int64_t n, int64_t width) {
    const int64_t row = n / spans(width), first = n % spans(width) * SPAN;
    const int64_t last = first + SPAN < width ? first + SPAN : width;
    return (span){row, row * width + first, row * width + last};
}

static inline float clip(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

static inline int outside(float x, float lo, float hi) { return (x <= lo) | (x >= hi); }

/* Add up each row's partial sums, in place of the first. */
static void add_up(double *part, float *ds, int64_t channels, int64_t width) {
    for (int64_t row = 0; row < channels; row++) {
        double sum = 0;
        for (int64_t i = 0; i < spans(width); i++) sum += part[row * spans(width) + i];
        ds[row] = (float)sum;
    }
}

void lsq_forward(const float *v, float *out, const float *s, int64_t channels, int64_t width,
                 int threads, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float step = s[p.row], inverse = 1 / step;
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            out[i] = rintf(clip(v[i] * inverse, lo, hi)) * step;
    }
}

void lsq_backward(const float *v, const float *g, float *dv, float *ds, double *part, const float *s,
                  int64_t channels, int64_t width, int threads, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float inverse = 1 / s[p.row];
        float sum = 0;
        LANES_SUM
        for (int64_t i = p.begin; i < p.end; i++) {
            const float ratio = v[i] * inverse, upstream = g[i];
            const int out = outside(ratio, lo, hi);
            dv[i] = out ? 0 : upstream;
            sum += (rintf(clip(ratio, lo, hi)) - (out ? 0 : ratio)) * upstream;
        }
        part[n] = sum;
    }
    add_up(part, ds, channels, width);
}

void affine_forward(const float *v, float *out, const float *s, const float *z, int64_t channels,
                    int64_t width, int threads, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float step = s[p.row], zero = z ? z[p.row] : 0;
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            out[i] = (clip(rintf(v[i] / step) + zero, lo, hi) - zero) * step;
    }
}

void affine_backward(const float *v, const float *g, float *dv, const float *s, const float *z,
                     int64_t channels, int64_t width, int threads, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float step = s[p.row], zero = z ? z[p.row] : 0;
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            dv[i] = outside(rintf(v[i] / step) + zero, lo - 0.5f, hi + 0.5f) ? 0 : g[i];
    }
}

void affine_backward_scale(const float *v, const float *g, float *dv, float *ds, double *part,
                           const float *s, const float *z, int64_t channels, int64_t width,
                           int threads, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float step = s[p.row], zero = z ? z[p.row] : 0;
        float sum = 0;
        LANES_SUM
        for (int64_t i = p.begin; i < p.end; i++) {
            const float ratio = v[i] / step, q = rintf(ratio) + zero, upstream = g[i];
            const int out = outside(q, lo - 0.5f, hi + 0.5f);
            dv[i] = out ? 0 : upstream;
            sum += (clip(q, lo, hi) - zero - (out ? 0 : ratio)) * upstream;
        }
        part[n] = sum;
    }
    add_up(part, ds, channels, width);
}

void interval_forward(const float *v, float *out, const float *s, int64_t channels, int64_t width,
                      int threads, float lo, float hi, float gamma) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float factor = gamma / s[p.row];
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            out[i] = rintf(clip(v[i] * factor, lo, hi)) / gamma;
    }
}

/* Here gradient passes where lo < γv/s < hi: the caller gives the numbers beyond α and β. */
void interval_backward(const float *v, const float *g, float *dv, float *ds, double *part,
                       const float *s, int64_t channels, int64_t width, int threads, float lo,
                       float hi, float gamma) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        const float step = s[p.row], factor = gamma / step;
        float sum = 0;
        LANES_SUM
        for (int64_t i = p.begin; i < p.end; i++) {
            const float scaled = v[i] * factor;
            const float passed = outside(scaled, lo, hi) ? 0 : g[i];
            dv[i] = passed / step;
            sum += clip(scaled, lo, hi) * passed;
        }
        part[n] = sum;
    }
    add_up(part, ds, channels, width);
    for (int64_t row = 0; row < channels; row++) ds[row] /= s[row] * -gamma;
}

/* The bits of |v| order as |v| does, and NaN above all: so a maximum of NaN is NaN. */
static inline uint32_t magnitude(const float *v) { return *(const uint32_t *)v & 0x7fffffff; }

void largest_magnitudes(const float *v, float *peak, uint32_t *part, int64_t channels, int64_t width,
                        int threads) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const span p = nth_span(n, width);
        uint32_t top = 0;
        _Pragma("omp simd reduction(max : top)")
        for (int64_t i = p.begin; i < p.end; i++) {
            const uint32_t here = magnitude(v + i);
            top = here > top ? here : top;
        }
        part[n] = top;
    }
    for (int64_t row = 0; row < channels; row++) {
        uint32_t top = 0;
        for (int64_t n = row * spans(width); n < (row + 1) * spans(width); n++)
            top = part[n] > top ? part[n] : top;
        *(uint32_t *)(peak + row) = top;
    }
}

/* Give the gradient of a scale |peak| / levels to the first weight of that magnitude. */
void add_at_peak(const float *v, float *dv, const float *ds, const float *peak, int64_t channels,
                 int64_t width, float levels) {
    for (int64_t row = 0; row < channels; row++) {
        const float *weights = v + row * width;
        const uint32_t top = magnitude(peak + row);
        int64_t i = 0;
        for (int found = 0; i + 64 <= width; i += 64) {
            _Pragma("omp simd reduction(| : found)")
            for (int64_t k = i; k < i + 64; k++) found |= magnitude(weights + k) == top;
            if (found) break;
        }
        while (i < width && magnitude(weights + i) != top) i++;
        if (i == width || top == 0) continue;
        dv[row * width + i] += copysignf(1, weights[i]) * (ds[row] / levels);
    }
}

/* Latent weights under transition-rate scheduling: their step, then their codes and how many changed.
   `inverse` is γ/s and `u` the layer's rate, both read once; old and new are the codes before and
   after. */
static inline float code(float w, float inverse, float lo, float hi) {
    return rintf(clip(w * inverse, lo, hi));
}

/* a + b x, rounded once where torch rounds it once. */
static inline float plus(float a, float b, float x) {
#ifdef __FMA__
    return __builtin_fmaf(b, x, a);
#else
    return a + b * x;
#endif
}

/* d = g + decay w; v = mu v + d; w = w - u v. */
int64_t sgd_transition_step(float *w, const float *g, float *v, const int8_t *old, int8_t *new,
                            const float *u, const float *inverse, int64_t n, int threads, float decay,
                            float mu, float lo, float hi) {
    const float rate = *u, factor = *inverse;
    int64_t changed = 0;
    COUNTING
    for (int64_t k = 0; k < spans(n); k++) {
        const span p = nth_span(k, n);
        int sum = 0;
        LANES_SUM
        for (int64_t i = p.begin; i < p.end; i++) {
            const float momentum = v[i] * mu + plus(g[i], w[i], decay);
            const float weight = plus(w[i], momentum, -rate);
            const int now = (int)code(weight, factor, lo, hi);
            sum += now != old[i];
            v[i] = momentum;
            w[i] = weight;
            new[i] = (int8_t)now;
        }
        changed += sum;
    }
    return changed;
}

/* Of a step that led from `start` to w, keep `share`. */
int64_t blend_transition_step(float *w, const float *start, const int8_t *old, int8_t *new,
                              const float *share, const float *inverse, int64_t n, int threads,
                              float lo, float hi) {
    const float part = *share, rest = 1 - part, factor = *inverse;
    int64_t changed = 0;
    COUNTING
    for (int64_t k = 0; k < spans(n); k++) {
        const span p = nth_span(k, n);
        int sum = 0;
        LANES_SUM
        for (int64_t i = p.begin; i < p.end; i++) {
            const float way = w[i] - start[i];  /* as torch.lerp goes it */
            const float weight = part < 0.5f ? start[i] + part * way : w[i] - rest * way;
            const int now = (int)code(weight, factor, lo, hi);
            sum += now != old[i];
            w[i] = weight;
            new[i] = (int8_t)now;
        }
        changed += sum;
    }
    return changed;
}
