#include "bundle.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "files.h"
#include "json.h"
#include "sha256.h"

enum { NEWEST_SCHEMA = 2, LONGEST_NAME = 255, LARGEST_SIZE = 4096 };

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = malloc(room);
    if (path)
        snprintf(path, room, "%s/%s", folder, name);
    else
        failed("out of memory");
    return path;
}

/* Reads a file of the bundle into memory, after it was compared with the manifest; NULL where it differs. */
static char *checked(const char *manifest, const char *name, const char *path, size_t *size)
{
    char wanted[65], found[65];
    const char *entry = json_value(json_value(manifest, "files"), name);
    if (!json_text(json_value(entry, "sha256"), wanted, sizeof wanted)) {
        failed("bundle.json has no hash of %s", name);
        return NULL;
    }
    char *bytes = read_file(path, size);
    if (!bytes)
        return NULL;
    sha256((unsigned char *)bytes, *size, found);
    if (strcmp(found, wanted) == 0)
        return bytes;
    failed("%s is not the bundle's: found %zu bytes with the hash %.12s; expected %zu with %.12s", path, *size, found,
           json_number(json_value(entry, "bytes"), SIZE_MAX), wanted);
    free(bytes);
    return NULL;
}

/* Whether a graph says that some of its weights are in another file, of which bundle.json has no hash: there is the key
 * of ONNX's external data, behind its length. */
static bool names_other_files(const char *bytes, size_t size)
{
    static const char key[] = "location";
    const size_t length = sizeof key - 1;
    for (size_t place = 1; place + length <= size; place++)
        if (bytes[place] == key[0] && (bytes[place - 1] == 8 || bytes[place - 1] == 0) &&
            memcmp(bytes + place, key, length) == 0)
            return true;
    return false;
}

/* The path of a graph whose file is as it should be. */
static char *graph_path(const char *manifest, const char *folder, const char *key)
{
    char name[LONGEST_NAME + 1];
    size_t size;
    if (!json_text(json_value(json_value(json_value(manifest, "graphs"), key), "file"), name, sizeof name)) {
        failed("bundle.json names no graph '%s'", key);
        return NULL;
    }
    char *path = join(folder, name);
    char *bytes = path ? checked(manifest, name, path, &size) : NULL;
    bool fine = bytes && (!names_other_files(bytes, size) ||
                          failed("%s is refused: it names other files for its weights; expected a graph that holds them",
                                 path));
    free(bytes);
    if (!fine) {
        free(path);
        path = NULL;
    }
    return path;
}

/* False where the model was made for another number of words; bundles of before that was written down have none. */
static bool fits(const char *manifest, const char *vocabulary, size_t size, const char *path)
{
    const char *words = json_value(json_value(manifest, "sizes"), "words");
    size_t lines = size == 0 || vocabulary[size - 1] != '\n', wanted = json_number(words, SIZE_MAX);
    for (size_t place = 0; place < size; place++)
        lines += vocabulary[place] == '\n';
    return !words || lines == wanted ||
           failed("%s does not fit the model: found %zu words; expected %zu", path, lines, wanted);
}

static char *vocabulary_text(const char *manifest, const char *folder, size_t *size)
{
    char name[LONGEST_NAME + 1];
    if (!json_text(json_value(manifest, "vocabulary"), name, sizeof name)) {
        failed("bundle.json names no vocabulary");
        return NULL;
    }
    char *path = join(folder, name);
    char *text = path ? checked(manifest, name, path, size) : NULL;
    if (text && !fits(manifest, text, *size, path)) {
        free(text);
        text = NULL;
    }
    free(path);
    return text;
}

static bool is_object(const char *path, const char *text, size_t size)
{
    char found[] = "the end of the file";
    size_t stop;
    const char *expected = json_object_lacks(text, size, &stop);
    if (!expected)
        return true;
    if (stop < size)
        snprintf(found, sizeof found, "0x%02x", (unsigned char)text[stop]);
    return failed("%s is not a JSON object: found %s at byte %zu; expected %s", path, found, stop, expected);
}

static bool read_sizes(bundle *opened, const char *manifest)
{
    char kind[32] = "nothing";
    size_t schema = json_number(json_value(manifest, "schema"), SIZE_MAX);
    if (schema < 1)
        return failed("bundle.json has no schema that is a number; expected %d", NEWEST_SCHEMA);
    if (schema > NEWEST_SCHEMA)
        return failed("bundle.json is newer than this program: found schema %zu; expected %d", schema, NEWEST_SCHEMA);
    if (!json_text(json_value(manifest, "kind"), kind, sizeof kind) || strcmp(kind, "text-to-image") != 0)
        return failed("this bundle makes no pictures: found kind '%s'; expected 'text-to-image'", kind);
    const char *sizes = json_value(manifest, "sizes");
    opened->z = json_number(json_value(sizes, "z"), LARGEST_SIZE);
    opened->eps = json_number(json_value(sizes, "eps"), LARGEST_SIZE);
    opened->picture = json_last_number(json_value(sizes, "stages"), LARGEST_SIZE);
    const char *inputs = json_value(json_value(json_value(manifest, "graphs"), "generator"), "inputs");
    opened->looks_at_words = json_value(inputs, "words") != NULL;
    bool takes_eps = json_value(inputs, "eps") != NULL;
    if (!takes_eps)
        opened->eps = 0;
    return (opened->z && opened->picture && (opened->eps || !takes_eps)) ||
           failed("bundle.json has no usable sizes: found z %zu, eps %zu, last stage %zu; expected 1 to %d each",
                  opened->z, opened->eps, opened->picture, LARGEST_SIZE);
}

static bool read_truncation(bundle *opened, const char *manifest)
{
    const char *truncation = json_value(manifest, "truncation");
    opened->clip = json_decimal(json_value(truncation, "clip"), INFINITY);
    opened->scale = json_decimal(json_value(truncation, "scale"), 1.0);
    return (opened->clip >= 0.5 && opened->scale <= 1.0) ||
           failed("bundle.json has no usable truncation: found a clip of %g, times %g; expected 0.5 or more, times 0 to 1",
                  opened->clip, opened->scale);
}

bool bundle_open(bundle *opened, const char *folder)
{
    size_t size;
    *opened = (bundle){0};
    char *path = join(folder, "bundle.json");
    char *manifest = path ? read_file(path, &size) : NULL;
    bool fine = manifest && is_object(path, manifest, size) && read_sizes(opened, manifest);
    fine = fine && read_truncation(opened, manifest);
    fine = fine && (opened->vocabulary = vocabulary_text(manifest, folder, &opened->vocabulary_size));
    fine = fine && (opened->text_encoder = graph_path(manifest, folder, "text_encoder"));
    fine = fine && (opened->generator = graph_path(manifest, folder, "generator"));
    free(manifest);
    free(path);
    if (!fine)
        bundle_close(opened);
    return fine;
}

void bundle_close(bundle *opened)
{
    free(opened->text_encoder);
    free(opened->generator);
    free(opened->vocabulary);
    *opened = (bundle){0};
}
