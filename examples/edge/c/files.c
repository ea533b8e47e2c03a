#define _POSIX_C_SOURCE 200809L
#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "png.h"

static bool ends_in(const char *path, const char *suffix)
{
    size_t length = strlen(path), ending = strlen(suffix);
    return length > ending && strcmp(path + length - ending, suffix) == 0;
}

static char *read_stream(FILE *stream, size_t *size)
{
    size_t room = 1 << 20, used = 0;
    char *bytes = malloc(room);
    while (bytes) {
        used += fread(bytes + used, 1, room - used - 1, stream);
        if (used < room - 1)
            break;
        char *larger = realloc(bytes, room *= 2);
        if (!larger)
            free(bytes);
        bytes = larger;
    }
    if (!bytes)
        errno = ENOMEM;
    if (!bytes || ferror(stream)) {
        free(bytes);
        return NULL;
    }
    bytes[used] = '\0';
    *size = used;
    return bytes;
}

char *read_file(const char *path, size_t *size)
{
    struct stat there; /* a pipe would be waited for, and a device may never end */
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode)) {
        failed("%s is no file", path);
        return NULL;
    }
    FILE *stream = fopen(path, "rb");
    char *bytes = stream ? read_stream(stream, size) : NULL;
    if (!bytes)
        failed("%s can't be read: %s", path, strerror(errno));
    if (stream)
        fclose(stream);
    return bytes;
}

static bool write_ppm(FILE *stream, const unsigned char *pixels, size_t side)
{
    bool written = fprintf(stream, "P6\n%zu %zu\n255\n", side, side) > 0;
    return fwrite(pixels, 3 * side, side, stream) == side && written;
}

static bool write_part(const char *path, bool png, const unsigned char *pixels, size_t side)
{
    FILE *stream = fopen(path, "wb");
    if (!stream)
        return false;
    bool written = png ? png_write(stream, pixels, side) : write_ppm(stream, pixels, side);
    return fclose(stream) == 0 && written;
}

bool check_picture(const char *path)
{
    struct stat there;
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode))
        return failed("%s is not a file, and is left alone", path);
    return ends_in(path, ".png") || ends_in(path, ".ppm") ||
           failed("%s has no name of a picture: expected one that ends in .png or .ppm", path);
}

bool write_picture(const char *path, const unsigned char *pixels, size_t side)
{
    size_t length = strlen(path) + 32;
    char *part = malloc(length);
    if (!part)
        return failed("out of memory");
    snprintf(part, length, "%s.%ld.part", path, (long)getpid());
    bool written = write_part(part, ends_in(path, ".png"), pixels, side) && rename(part, path) == 0;
    if (!written) {
        failed("%s can't be written: %s", path, strerror(errno));
        remove(part);
    }
    free(part);
    return written;
}
