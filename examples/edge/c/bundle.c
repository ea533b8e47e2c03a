#include "bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "files.h"
#include "sha256.h"

enum { NEWEST_SCHEMA = 1, LONGEST_NAME = 255, LARGEST_SIZE = 4096 };

static const char BLANKS[] = " \t\r\n";

/* The value of a key of the JSON object that `json` begins with, or NULL. */
static const char *value_of(const char *json, const char *key)
{
    size_t length = strlen(key), depth = 0;
    if (!json || *json != '{')
        return NULL;
    for (; *json; json++) {
        depth += *json == '{' || *json == '[';
        depth -= *json == '}' || *json == ']';
        if (depth == 0)
            return NULL;
        if (*json != '"')
            continue;
        const char *text = json + 1;
        for (json = text; *json && *json != '"'; json++)
            json += *json == '\\' && json[1];
        if (!*json)
            return NULL;
        const char *colon = json + 1 + strspn(json + 1, BLANKS);
        if (depth == 1 && *colon == ':' && (size_t)(json - text) == length && memcmp(text, key, length) == 0)
            return colon + 1 + strspn(colon + 1, BLANKS);
    }
    return NULL;
}

/* Copies a JSON string without escapes; false where there is none, or one that is too long. */
static bool text_at(const char *json, char *text, size_t room)
{
    size_t length = json && *json == '"' ? strcspn(++json, "\"\\") : 0;
    if (length == 0 || json[length] != '"' || length >= room)
        return false;
    memcpy(text, json, length);
    text[length] = '\0';
    return true;
}

static size_t number_at(const char *json)
{
    unsigned long number = json && *json >= '0' && *json <= '9' ? strtoul(json, NULL, 10) : 0;
    return number <= LARGEST_SIZE ? number : 0;
}

/* The last number of a JSON list of numbers. */
static size_t last_number_of(const char *list)
{
    const char *end = list && *list == '[' ? strchr(list, ']') : NULL;
    if (!end)
        return 0;
    while (end > list + 1 && strchr(BLANKS, end[-1]))
        end--;
    while (end > list + 1 && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return number_at(end);
}

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
    if (!text_at(value_of(value_of(value_of(manifest, "files"), name), "sha256"), wanted, sizeof wanted)) {
        failed("bundle.json has no hash of %s", name);
        return NULL;
    }
    char *bytes = read_file(path, size);
    if (!bytes)
        return NULL;
    sha256((unsigned char *)bytes, *size, found);
    if (strcmp(found, wanted) == 0)
        return bytes;
    failed("%s is not the bundle's: its hash is %.12s; expected %.12s", path, found, wanted);
    free(bytes);
    return NULL;
}

/* The path of a graph whose file is as it should be. */
static char *graph_path(const char *manifest, const char *folder, const char *key)
{
    char name[LONGEST_NAME + 1];
    size_t size;
    if (!text_at(value_of(value_of(value_of(manifest, "graphs"), key), "file"), name, sizeof name)) {
        failed("bundle.json names no graph '%s'", key);
        return NULL;
    }
    char *path = join(folder, name);
    char *bytes = path ? checked(manifest, name, path, &size) : NULL;
    if (!bytes) {
        free(path);
        path = NULL;
    }
    free(bytes);
    return path;
}

static char *vocabulary_text(const char *manifest, const char *folder, size_t *size)
{
    char name[LONGEST_NAME + 1];
    if (!text_at(value_of(manifest, "vocabulary"), name, sizeof name)) {
        failed("bundle.json names no vocabulary");
        return NULL;
    }
    char *path = join(folder, name);
    char *text = path ? checked(manifest, name, path, size) : NULL;
    free(path);
    return text;
}

static bool read_sizes(bundle *opened, const char *manifest)
{
    char kind[32] = "nothing";
    size_t schema = number_at(value_of(manifest, "schema"));
    if (schema < 1 || schema > NEWEST_SCHEMA)
        return failed("bundle.json has schema %zu; expected %d", schema, NEWEST_SCHEMA);
    if (!text_at(value_of(manifest, "kind"), kind, sizeof kind) || strcmp(kind, "text-to-image") != 0)
        return failed("this bundle makes no pictures: found kind '%s'; expected 'text-to-image'", kind);
    const char *sizes = value_of(manifest, "sizes");
    opened->z = number_at(value_of(sizes, "z"));
    opened->eps = number_at(value_of(sizes, "eps"));
    opened->picture = last_number_of(value_of(sizes, "stages"));
    return (opened->z && opened->eps && opened->picture) || failed("bundle.json has no usable sizes");
}

bool bundle_open(bundle *opened, const char *folder)
{
    size_t size;
    *opened = (bundle){0};
    char *path = join(folder, "bundle.json");
    char *manifest = path ? read_file(path, &size) : NULL;
    bool fine = manifest && read_sizes(opened, manifest);
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
