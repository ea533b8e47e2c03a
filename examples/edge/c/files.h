/* Reading and writing whole files. */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes of a file with a zero behind them, to be freed; NULL and a failure where it can't be read. */
char *read_file(const char *path, size_t *size);

/* Whether `write_picture` can write `path`: a file, new or old, whose name ends in .png or .ppm. */
bool check_picture(const char *path);

/* Writes a picture of `side` x `side` pixels, three bytes each, in the format of its name, under a temporary name that
 * then becomes `path`. */
bool write_picture(const char *path, const unsigned char *pixels, size_t side);

#endif
