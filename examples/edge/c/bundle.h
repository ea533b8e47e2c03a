/* A bundle's folder: what its bundle.json says, and whether its files are still what it says. */
#ifndef BUNDLE_H
#define BUNDLE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *text_encoder;   /* path of the graph */
    char *generator;      /* path of the graph */
    char *vocabulary;     /* the text itself */
    size_t vocabulary_size;
    size_t z, eps;        /* sizes of the noise */
    size_t picture;       /* pixels along a side */
} bundle;

/* Reads a text-to-image bundle and compares every file that is used with its SHA-256. */
bool bundle_open(bundle *opened, const char *folder);

void bundle_close(bundle *opened);

#endif
