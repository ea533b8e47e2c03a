#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "letters.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

typedef struct {
    const char *text;
    int64_t number;
} word;

struct vocabulary {
    char *text;
    word *words; /* in alphabetical order, without the padding word */
    size_t count;
};

static int by_text(const void *one, const void *other)
{
    return strcmp(((const word *)one)->text, ((const word *)other)->text);
}

static bool index_words(vocabulary *known, size_t size)
{
    char *line = known->text, *end = line + size;
    for (int64_t number = 0; line < end; number++) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        char *next = stop ? stop + 1 : end;
        if (!stop)
            stop = end;
        else if (stop > line && stop[-1] == '\r')
            stop--;
        *stop = '\0';
        if (number > 0)
            known->words[known->count++] = (word){line, number};
        line = next;
    }
    if (known->count == 0)
        return failed("the vocabulary is empty: expected a padding word and then the words");
    qsort(known->words, known->count, sizeof *known->words, by_text);
    for (size_t place = 1; place < known->count; place++)
        if (by_text(known->words + place - 1, known->words + place) == 0)
            return failed("the vocabulary has the word '%.60s' more than once", known->words[place].text);
    return true;
}

vocabulary *vocabulary_read(const char *text, size_t size)
{
    size_t lines = 1;
    for (size_t place = 0; place < size; place++)
        lines += text[place] == '\n';
    vocabulary *known = calloc(1, sizeof *known);
    if (known) {
        known->text = malloc(size + 1);
        known->words = calloc(lines, sizeof *known->words);
    }
    if (!known || !known->text || !known->words) {
        failed("out of memory");
    } else {
        memcpy(known->text, text, size);
        known->text[size] = '\0';
        if (index_words(known, size))
            return known;
    }
    vocabulary_free(known);
    return NULL;
}

void vocabulary_free(vocabulary *known)
{
    if (known) {
        free(known->text);
        free(known->words);
    }
    free(known);
}

/* Reads one code point and returns how many bytes it has; 0 where the bytes are not UTF-8. */
static size_t decode(const unsigned char *bytes, uint32_t *code)
{
    static const uint32_t SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = bytes[0] < 0x80 ? 1 : bytes[0] < 0xc0 ? 0 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
    if (length <= 1 || bytes[0] >= 0xf8) {
        *code = bytes[0];
        return bytes[0] < 0x80;
    }
    *code = bytes[0] & (0x7fu >> length);
    for (size_t place = 1; place < length; place++) {
        if ((bytes[place] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (bytes[place] & 0x3f);
    }
    bool wrong = *code < SMALLEST[length] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000);
    return wrong ? 0 : length;
}

static size_t encode(uint32_t code, char *bytes)
{
    static const unsigned char FIRST[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t place = length - 1; place > 0; place--, code >>= 6)
        bytes[place] = (char)(0x80 | (code & 0x3f));
    bytes[0] = (char)(FIRST[length] | code);
    return length;
}

static bool in_word(uint32_t code)
{
    if (code < 0x80)
        return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || (code >= '0' && code <= '9') || code == '_';
    size_t low = 0, high = LENGTH(WORD_RANGES);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > WORD_RANGES[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < LENGTH(WORD_RANGES) && code >= WORD_RANGES[low][0];
}

static uint32_t lower(uint32_t code)
{
    if (code < 0x80)
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    for (size_t place = 0; place < LENGTH(LOWER_CHANGES); place++) {
        const int32_t *change = LOWER_CHANGES[place];
        int32_t here = (int32_t)code;
        if (here >= change[0] && here <= change[1] && (here - change[0]) % change[2] == 0)
            return (uint32_t)(here + change[3]);
    }
    return code;
}

static void look_up(const vocabulary *known, char *text, size_t length, tokens *result)
{
    if (length == 0)
        return;
    text[length] = '\0';
    word wanted = {text, 0}, *found = bsearch(&wanted, known->words, known->count, sizeof wanted, by_text);
    if (found)
        result->numbers[result->count++] = found->number;
    else if (result->unknown++ == 0)
        snprintf(result->example, sizeof result->example, "%s", text);
}

bool tokenize(const vocabulary *known, const char *caption, tokens *result)
{
    size_t size = strlen(caption), length = 0;
    char *text = malloc(2 * size + 1); /* a small letter has at most twice the bytes of its capital */
    *result = (tokens){.numbers = calloc(size + 1, sizeof *result->numbers)};
    bool fine = text && result->numbers;
    if (!fine)
        failed("out of memory");
    for (size_t place = 0; fine && place < size;) {
        uint32_t code;
        size_t bytes = decode((const unsigned char *)caption + place, &code);
        if (bytes == 0) {
            fine = failed("the caption is not UTF-8: byte %zu", place);
        } else if (in_word(lower(code))) {
            length += encode(lower(code), text + length);
        } else {
            look_up(known, text, length, result);
            length = 0;
        }
        place += bytes;
    }
    if (fine) {
        look_up(known, text, length, result);
    } else {
        free(result->numbers);
        result->numbers = NULL;
    }
    free(text);
    return fine;
}
