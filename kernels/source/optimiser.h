// AdamW, one fused pass over parameters, gradients and both moments.
//
// What depends on the step alone is computed by who launches. Memory bounds it: 28 bytes an element, and a thread
// asks for 64 at once. The definition is `plesio_kernels::optimiser`.
#pragma once

#include "elements.h"

struct AdamW {
  Global<const float> gradient;
  Global<float> mean;
  Global<float> variance;
  Global<float> params;
  u64 len;
  float gradient_scale;
  float beta1;
  float gain1; // 1 - beta1
  float beta2;
  float gain2; // 1 - beta2
  float inv_correction2;
  float epsilon;
  float rate;  // the learning rate, corrected
  float decay; // of a parameter in one step, negative
  u32 aligned;
};

DEVICE void adamw_element(const AdamW& p, float gradient, float& mean, float& variance, float& param) {
  const float scaled = gradient * p.gradient_scale;
  mean = fused(p.beta1, mean, p.gain1 * scaled);
  variance = fused(p.beta2, variance, p.gain2 * scaled * scaled);
  const float deviation = root(variance * p.inv_correction2) + p.epsilon;
  const float decayed = fused(p.decay, param, param);
  param = fused(-p.rate, mean / deviation, decayed);
}

KERNEL(adamw, AdamW, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    float gradient[PACK], mean[PACK], variance[PACK], params[PACK];
    load_part<WHOLE>(p.gradient, first, p.len, gradient);
    load_part<WHOLE>(p.mean, first, p.len, mean);
    load_part<WHOLE>(p.variance, first, p.len, variance);
    load_part<WHOLE>(p.params, first, p.len, params);
    for (u32 e = 0; e < PACK; ++e) adamw_element(p, gradient[e], mean[e], variance[e], params[e]);
    store_part<WHOLE>(p.mean, first, p.len, mean);
    store_part<WHOLE>(p.variance, first, p.len, variance);
    store_part<WHOLE>(p.params, first, p.len, params);
  });
}
