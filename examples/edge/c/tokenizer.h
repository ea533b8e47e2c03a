/* Captions to word numbers, as attngan_deploy/media/tokenizer.py gives them. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vocabulary vocabulary;

typedef struct {
    int64_t *numbers;   /* of the known words, in order; each is 1 or more and less than the number of words */
    size_t count;
    size_t unknown;     /* how many words were left out */
    char example[64];   /* the first of them */
} tokens;

/* Reads the text of vocabulary.txt: a word a line, line 0 the padding word, which no caption contains.
 * NULL and a failure where it has no word or one twice. */
vocabulary *vocabulary_read(const char *text, size_t size);

/* Numbers the words of a caption in UTF-8; unknown words are left out. `result->numbers` is to be freed. */
bool tokenize(const vocabulary *known, const char *caption, tokens *result);

void vocabulary_free(vocabulary *known);

#endif
