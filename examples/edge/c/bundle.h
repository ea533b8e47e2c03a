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
    bool looks_at_words;  /* the generator takes words and mask beside the sentence */
    size_t z, eps;        /* sizes of the noise; eps is 0 where the generator takes none */
    double clip, scale;   /* of z: where normal numbers end, and what they are multiplied with */
    size_t picture;       /* pixels along a side */
} bundle;

/* Reads a text-to-image bundle and compares every file that is used with its SHA-256. */
bool bundle_open(bundle *opened, const char *folder);

void bundle_close(bundle *opened);

#endif
