/* Same seed, same bird: the noise contract of attngan_deploy/generate/noise.py. */
#ifndef NOISE_H
#define NOISE_H

#include <stddef.h>
#include <stdint.h>

enum { Z_STREAM = 0, EPS_STREAM = 1 };

/* Standard normal noise of one picture: `size` values that depend on the other arguments and on nothing else.
 * `caption` is the caption's place in the input and `sample` its sample number, both from 0. */
void noise_for(uint64_t seed, uint64_t caption, uint64_t sample, uint64_t stream, float *noise, size_t size);

/* The same without the numbers beyond `clip`, whose places the next ones take, times `scale`. */
void truncated_noise_for(uint64_t seed, uint64_t caption, uint64_t sample, uint64_t stream, double clip, double scale,
                         float *noise, size_t size);

#endif
