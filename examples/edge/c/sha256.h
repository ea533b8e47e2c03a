/* SHA-256 (FIPS 180-4). */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>

/* The hash of `size` bytes, in hexadecimal, with a zero behind it. */
void sha256(const unsigned char *bytes, size_t size, char hexadecimal[65]);

#endif
