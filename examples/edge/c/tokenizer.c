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

/* The row of a table of runs that holds a code point, or NULL. The first two columns are first and last. */
static const uint32_t *find_run(uint32_t code, const uint32_t *table, size_t rows, size_t columns)
{
    size_t low = 0, high = rows;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > table[middle * columns + 1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < rows && code >= table[low * columns] ? table + low * columns : NULL;
}

#define FIND_RUN(code, table) find_run(code, *(table), LENGTH(table), LENGTH(*(table)))

static bool in_word(uint32_t code)
{
    if (code < 0x80)
        return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || (code >= '0' && code <= '9') || code == '_';
    return FIND_RUN(code, WORD_RANGES) != NULL;
}

static uint32_t mark_class(uint32_t code)
{
    const uint32_t *run = code < 0x300 ? NULL : FIND_RUN(code, MARK_CLASSES);
    return run ? run[2] : 0;
}

/* Syllables of Korean: the first of each, how many vowels, and how many ends, the lack of one included. */
enum { SYLLABLES = 0xac00, STARTS = 0x1100, VOWELS = 0x1161, ENDS = 0x11a7, VOWEL_COUNT = 21, END_COUNT = 28, COUNT = 11172 };

/* The code point that two make in NFC, or 0. */
static uint32_t compose(uint32_t first, uint32_t second)
{
    if (first - STARTS < 19 && second - VOWELS < VOWEL_COUNT)
        return SYLLABLES + ((first - STARTS) * VOWEL_COUNT + second - VOWELS) * END_COUNT;
    if (first - SYLLABLES < COUNT && (first - SYLLABLES) % END_COUNT == 0 && second - ENDS - 1 < END_COUNT - 1)
        return first + second - ENDS;
    for (size_t place = 0; place < LENGTH(COMPOSED); place++)
        if (COMPOSED[place][1] == first && COMPOSED[place][2] == second)
            return COMPOSED[place][0];
    return 0;
}

/* Adds a code point, taken apart as far as it goes, behind `count` others; returns how many there are then. */
static size_t decompose(uint32_t code, uint32_t *codes, size_t count)
{
    const uint32_t *found = NULL;
    for (size_t place = 0; code >= 0xc0 && !found && place < LENGTH(COMPOSED); place++)
        found = COMPOSED[place][0] == code ? COMPOSED[place] : NULL;
    for (size_t place = 0; code >= 0xc0 && !found && place < LENGTH(APART); place++)
        found = APART[place][0] == code ? APART[place] : NULL;
    if (!found) {
        size_t place = count++; /* marks stand in the order of their classes */
        for (uint32_t kind = mark_class(code); kind && place > 0 && mark_class(codes[place - 1]) > kind; place--)
            codes[place] = codes[place - 1];
        codes[place] = code;
        return count;
    }
    count = decompose(found[1], codes, count);
    return found[2] ? decompose(found[2], codes, count) : count;
}

/* NFC of code points that `decompose` gave, in their place; returns how many it has. */
static size_t compose_all(uint32_t *codes, size_t count)
{
    size_t kept = 0, start = 0;
    bool started = false;
    for (size_t place = 0; place < count; place++) {
        uint32_t code = codes[place], kind = mark_class(code), whole = 0;
        bool blocked = started && kept > start + 1 && (!kind || mark_class(codes[kept - 1]) >= kind);
        if (started && !blocked && (whole = compose(codes[start], code))) {
            codes[start] = whole;
            continue;
        }
        if (!kind)
            start = kept, started = true;
        codes[kept++] = code;
    }
    return kept;
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
    size_t size = strlen(caption), count = 0, length = 0;
    uint32_t *codes = calloc(2 * size + 1, sizeof *codes); /* two bytes come apart into three code points at most */
    char *text = malloc(8 * size + 1);
    *result = (tokens){.numbers = calloc(2 * size + 1, sizeof *result->numbers)};
    bool fine = codes && text && result->numbers;
    if (!fine)
        failed("out of memory");
    for (size_t place = 0; fine && place < size;) {
        uint32_t code;
        size_t bytes = decode((const unsigned char *)caption + place, &code);
        if (bytes == 0)
            fine = failed("the caption is not UTF-8: byte %zu", place);
        else if (!FIND_RUN(code, INVISIBLE))
            count = decompose(code, codes, count);
        place += bytes;
    }
    count = fine ? compose_all(codes, count) : 0;
    for (size_t place = 0; place < count; place++) {
        uint32_t code = lower(codes[place]);
        if (in_word(code)) {
            length += encode(code, text + length);
        } else {
            look_up(known, text, length, result);
            length = 0;
        }
    }
    if (fine) {
        look_up(known, text, length, result);
    } else {
        free(result->numbers);
        result->numbers = NULL;
    }
    free(codes);
    free(text);
    return fine;
}
