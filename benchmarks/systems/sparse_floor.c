/* The network of benchmarks/sparse_network.py and nothing else: one core, float, a ring of
   arrivals. Returns the number of spikes. */
#include <stdint.h>

typedef struct {
  float decay, input, v_rest, v_th, v_reset, held, decay_syn;
  int32_t n, delay, refractory;
} Net;

int64_t run(const Net *p, int32_t steps, const int64_t *restrict first, const int32_t *restrict post,
            const float *restrict w, float *restrict v, float *restrict i_syn, float *restrict ring,
            int32_t *restrict silent) {
  int64_t spikes = 0;
  for (int32_t t = 0; t < steps; ++t) {
    float *restrict arrived = ring + (int64_t)(t % (p->delay + 1)) * p->n;
    float *later = ring + (int64_t)((t + p->delay) % (p->delay + 1)) * p->n;
    for (int32_t j = 0; j < p->n; ++j) {
      float moved = p->decay * v[j] + p->input * (p->v_rest + p->held * i_syn[j]);
      v[j] = silent[j] > 0 ? v[j] : moved;
      silent[j] = silent[j] > 0 ? silent[j] - 1 : 0;
      i_syn[j] = p->decay_syn * i_syn[j] + arrived[j];
      arrived[j] = 0;
    }
    for (int32_t j = 0; j < p->n; ++j)
      if (v[j] >= p->v_th) {
        ++spikes;
        v[j] = p->v_reset;
        silent[j] = p->refractory;
        for (int64_t e = first[j]; e < first[j + 1]; ++e) later[post[e]] += w[e];
      }
  }
  return spikes;
}
