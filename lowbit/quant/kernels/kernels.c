/* Fake-quantization of float32 memory on a CPU: each tensor is read once and written once.

   A tensor is `channels` rows of `width` elements in memory order, with one scale s (and span of
   `count` steps, and zero-point z where it is not NULL) a row. Comparisons are written so that NaN takes the way it takes in
   range_quantize.py, whose formulas these are; both round alike, element by element. Sums run in
   float over SPAN elements and in double over those, so they depend on no number of threads.

   Legend: v input, g incoming gradient, dv and ds outgoing ones, [lo, hi] codes. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define SPAN 4096
#define ACROSS _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
#define COUNTING \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1) reduction(+ : changed)")
#define LANES _Pragma("omp simd")
#define LANES_SUM _Pragma("omp simd reduction(+ : sum)")

struct span { int64_t row, begin, end; };

static int64_t spans(int64_t width) { return (width + SPAN - 1) / SPAN; }

static struct span nth_span(int64_t n, int64_t width) {
    const int64_t row = n / spans(width), first = n % spans(width) * SPAN;
    const int64_t last = first + SPAN < width ? first + SPAN : width;
    return (struct span){row, row * width + first, row * width + last};
}

static inline float clip(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

static inline int outside(float x, float lo, float hi) { return (x <= lo) | (x >= hi); }

/* Add up each row's partial sums, and free them. */
static void add_up(double *part, float *ds, int64_t channels, int64_t width) {
    for (int64_t row = 0; row < channels; row++) {
        double sum = 0;
        for (int64_t i = 0; i < spans(width); i++) sum += part[row * spans(width) + i];
        ds[row] = (float)sum;
    }
    free(part);
}

static double *partial_sums(int64_t channels, int64_t width) {
    return malloc(channels * spans(width) * sizeof(double));
}

/* The step of a learned scale: its magnitude, not below `least`, times a ratio. */
static inline float learned_step(float s, float least, float ratio) {
    s = fabsf(s);
    return (s < least ? least : s) * ratio;
}

void lsq_forward(const float *v, float *out, const float *s, int64_t channels, int64_t width,
                 int threads, float least, float ratio, float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        const float step = learned_step(s[p.row], least, ratio), inverse = 1 / step;
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            out[i] = rintf(clip(v[i] * inverse, lo, hi)) * step;
    }
}

/* The gradient of the scale is multiplied by `factor`, and by the sign of the scale. */
void lsq_backward(const float *v, const float *g, float *dv, float *ds, const float *s,
                  int64_t channels, int64_t width, int threads, float least, float ratio,
                  float factor, float lo, float hi) {
    double *part = partial_sums(channels, width);
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        const float inverse = 1 / learned_step(s[p.row], least, ratio);
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
    for (int64_t row = 0; row < channels; row++) ds[row] *= s[row] < 0 ? -factor : factor;
}

/* v / span * count, in this order: a v that equals the span gives exactly `count`, wherever it runs. */
static inline float steps(float v, float span, float count) { return v / span * count; }

/* Values below `least` count as `least`: 0 for a ReLU in the same pass, else -infinity. */
void affine_forward(const float *v, float *out, const float *s, const float *span, const float *z,
                    int64_t channels, int64_t width, int threads, float count, float least, float lo,
                    float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        const float step = s[p.row], whole = span[p.row], zero = z ? z[p.row] : 0;
        LANES
        for (int64_t i = p.begin; i < p.end; i++) {
            const float x = v[i] < least ? least : v[i];
            out[i] = (clip(rintf(steps(x, whole, count)) + zero, lo, hi) - zero) * step;
        }
    }
}

void affine_backward(const float *v, const float *g, float *dv, const float *span, const float *z,
                     int64_t channels, int64_t width, int threads, float count, float least,
                     float lo, float hi) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        const float whole = span[p.row], zero = z ? z[p.row] : 0;
        LANES
        for (int64_t i = p.begin; i < p.end; i++) {
            const float q = rintf(steps(v[i], whole, count)) + zero;
            dv[i] = outside(q, lo - 0.5f, hi + 0.5f) | (v[i] <= least) ? 0 : g[i];
        }
    }
}

/* The same and the sum of ∂v̂/∂s g, for elements begin to end. */
static float affine_span(const float *v, const float *g, float *dv, int64_t begin, int64_t end,
                         float whole, float zero, float count, float lo, float hi) {
    float sum = 0;
    LANES_SUM
    for (int64_t i = begin; i < end; i++) {
        const float ratio = steps(v[i], whole, count), q = rintf(ratio) + zero, upstream = g[i];
        const int out = outside(q, lo - 0.5f, hi + 0.5f);
        dv[i] = out ? 0 : upstream;
        sum += (clip(q, lo, hi) - zero - (out ? 0 : ratio)) * upstream;
    }
    return sum;
}

void affine_backward_scale(const float *v, const float *g, float *dv, float *ds,
                           const float *span, const float *z, int64_t channels, int64_t width,
                           int threads, float count, float lo, float hi) {
    double *part = partial_sums(channels, width);
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        part[n] = affine_span(v, g, dv, p.begin, p.end, span[p.row], z ? z[p.row] : 0, count, lo, hi);
    }
    add_up(part, ds, channels, width);
}

void interval_forward(const float *v, float *out, const float *s, int64_t channels, int64_t width,
                      int threads, float lo, float hi, float gamma) {
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
        const float factor = gamma / s[p.row];
        LANES
        for (int64_t i = p.begin; i < p.end; i++)
            out[i] = rintf(clip(v[i] * factor, lo, hi)) / gamma;
    }
}

/* Here gradient passes where lo < γv/s < hi: the caller gives the numbers beyond α and β. */
void interval_backward(const float *v, const float *g, float *dv, float *ds, const float *s,
                       int64_t channels, int64_t width, int threads, float lo, float hi,
                       float gamma) {
    double *part = partial_sums(channels, width);
    ACROSS
    for (int64_t n = 0; n < channels * spans(width); n++) {
        const struct span p = nth_span(n, width);
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

static float largest_magnitude(const float *v, int64_t width) {
    uint32_t top = 0;
    _Pragma("omp simd reduction(max : top)")
    for (int64_t i = 0; i < width; i++) {
        const uint32_t here = magnitude(v + i);
        top = here > top ? here : top;
    }
    return *(float *)&top;
}

static int64_t first_of_magnitude(const float *v, int64_t width, float peak) {
    const uint32_t top = magnitude(&peak);
    int64_t i = 0;
    for (int found = 0; i + 64 <= width; i += 64) {
        _Pragma("omp simd reduction(| : found)")
        for (int64_t k = i; k < i + 64; k++) found |= magnitude(v + k) == top;
        if (found) break;
    }
    while (i < width && magnitude(v + i) != top) i++;
    return i;
}

/* Affine without zero-point, whose span is the largest magnitude of a row: it is found, or receives
   its gradient, while the row is in the cache. One thread does a row. A row of zeros has s = 1. */
void symmetric_forward(const float *v, float *out, float *peak, int64_t channels, int64_t width,
                       int threads, float count, float lo, float hi) {
    ACROSS
    for (int64_t row = 0; row < channels; row++) {
        const float *in = v + row * width, top = largest_magnitude(in, width);
        const float whole = top == 0 ? count : top, step = whole / count;
        float *to = out + row * width;
        peak[row] = top;
        LANES
        for (int64_t i = 0; i < width; i++)
            to[i] = clip(rintf(steps(in[i], whole, count)), lo, hi) * step;
    }
}

void symmetric_backward(const float *v, const float *g, float *dv, const float *peak,
                        int64_t channels, int64_t width, int threads, float count, float lo,
                        float hi) {
    ACROSS
    for (int64_t row = 0; row < channels; row++) {
        const float *in = v + row * width, *upstream = g + row * width;
        const float top = peak[row], whole = top == 0 ? count : top;
        float *to = dv + row * width;
        double ds = 0;
        for (int64_t i = 0; i < width; i += SPAN)
            ds += affine_span(in, upstream, to, i, i + SPAN < width ? i + SPAN : width, whole, 0,
                              count, lo, hi);
        const int64_t place = first_of_magnitude(in, width, top);
        if (top != 0 && place < width) to[place] += copysignf(1, in[place]) * ((float)ds / count);
    }
}

/* uint8 codes of an integer grid: clip(round(v / step) + zero, lo, hi). The conversion goes by way of int,
   which the compiler vectorizes. */
static inline uint8_t code8(float v, float step, float zero, float lo, float hi) {
    return (uint8_t)(int)clip(rintf(v / step) + zero, lo, hi);
}

void encode(const float *v, uint8_t *out, int64_t n, int threads, float step, float zero, float lo,
            float hi) {
    ACROSS
    for (int64_t k = 0; k < spans(n); k++) {
        const struct span p = nth_span(k, n);
        LANES
        for (int64_t i = p.begin; i < p.end; i++) out[i] = code8(v[i], step, zero, lo, hi);
    }
}

void decode(const uint8_t *q, float *out, int64_t n, int threads, float step, float zero) {
    ACROSS
    for (int64_t k = 0; k < spans(n); k++) {
        const struct span p = nth_span(k, n);
        LANES
        for (int64_t i = p.begin; i < p.end; i++) out[i] = ((float)q[i] - zero) * step;
    }
}

/* The end of a residual block, y = max(v + other, least), where `other` is float or, if that is NULL,
   codes. The sum is written as float over v, or as codes to `out` where it is not NULL. */
void add_codes(float *v, const float *other, const uint8_t *codes, uint8_t *out, int64_t n,
               int threads, float other_step, float other_zero, float least, float step, float zero,
               float lo, float hi) {
    ACROSS
    for (int64_t k = 0; k < spans(n); k++) {
        const struct span p = nth_span(k, n);
        if (other) {
            LANES
            for (int64_t i = p.begin; i < p.end; i++) v[i] += other[i];
        } else {
            LANES
            for (int64_t i = p.begin; i < p.end; i++)
                v[i] += ((float)codes[i] - other_zero) * other_step;
        }
        if (out) {
            LANES
            for (int64_t i = p.begin; i < p.end; i++) {
                const float sum = v[i] < least ? least : v[i];
                out[i] = code8(sum, step, zero, lo, hi);
            }
        } else {
            LANES
            for (int64_t i = p.begin; i < p.end; i++) v[i] = v[i] < least ? least : v[i];
        }
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
        const struct span p = nth_span(k, n);
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
        const struct span p = nth_span(k, n);
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
