/* Pictures as PNG, without compression. */
#ifndef PNG_H
#define PNG_H

#include <stdbool.h>
#include <stdio.h>

/* Writes a picture of `side` x `side` pixels, three bytes each. */
bool png_write(FILE *stream, const unsigned char *pixels, size_t side);

#endif
