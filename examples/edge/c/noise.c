#include "noise.h"

#include <math.h>

static const double TWO_PI = 6.283185307179586476925286766559;

/* The upper half of a 128-bit product, from 32-bit halves, as not every compiler has 128-bit numbers. */
static uint64_t high_product(uint64_t a, uint64_t b)
{
    uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
    uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
    uint64_t carry = a_low * b_high + (uint32_t)middle;
    return a_high * b_high + (middle >> 32) + (carry >> 32);
}

/* Philox4x64-10 (Salmon et al., 2011): the random words of one block. */
static void philox(uint64_t key_0, const uint64_t counter[4], uint64_t out[4])
{
    uint64_t a = counter[0], b = counter[1], c = counter[2], d = counter[3], key_1 = 0;
    for (int round = 0; round < 10; round++) {
        const uint64_t first = UINT64_C(0xD2E7470EE14C6C93), second = UINT64_C(0xCA5A826395121157);
        uint64_t high_a = high_product(first, a), low_a = first * a;
        uint64_t high_c = high_product(second, c), low_c = second * c;
        a = high_c ^ b ^ key_0;
        c = high_a ^ d ^ key_1;
        b = low_c;
        d = low_a;
        key_0 += UINT64_C(0x9E3779B97F4A7C15);
        key_1 += UINT64_C(0xBB67AE8584CAA73B);
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

static double inside_0_and_1(uint64_t bits)
{
    return ((double)(bits >> 11) + 0.5) * 0x1p-53;
}

void noise_for(uint64_t seed, uint64_t caption, uint64_t sample, uint64_t stream, float *noise, size_t size)
{
    truncated_noise_for(seed, caption, sample, stream, INFINITY, 1.0, noise, size);
}

void truncated_noise_for(uint64_t seed, uint64_t caption, uint64_t sample, uint64_t stream, double clip, double scale,
                         float *noise, size_t size)
{
    uint64_t counter[4] = {0, stream, caption, sample}, bits[4];
    for (size_t place = 0, drawn = 0; place < size; drawn += 2) {
        if (drawn % 4 == 0) {
            counter[0]++;
            philox(seed, counter, bits);
        }
        const uint64_t *pair = bits + drawn % 4;
        double radius = sqrt(-2.0 * log(inside_0_and_1(pair[0]))); /* Box-Muller */
        double angle = TWO_PI * inside_0_and_1(pair[1]);
        double both[2] = {radius * cos(angle), radius * sin(angle)};
        for (size_t one = 0; one < 2 && place < size; one++)
            if (fabs(both[one]) <= clip)
                noise[place++] = (float)(both[one] * scale);
    }
}
