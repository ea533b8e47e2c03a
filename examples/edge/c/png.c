/* PNG (ISO/IEC 15948): chunks of length, name, bytes and CRC; the pixels are a zlib stream of stored blocks. */
#include "png.h"

#include <stdint.h>

typedef struct {
    FILE *stream;
    uint32_t crc;
    bool good;
} writer;

static void put(writer *out, const void *bytes, size_t size)
{
    const unsigned char *place = bytes;
    for (size_t index = 0; index < size; index++) {
        out->crc ^= place[index];
        for (int bit = 0; bit < 8; bit++)
            out->crc = out->crc >> 1 ^ (out->crc & 1 ? 0xEDB88320u : 0);
    }
    out->good = fwrite(bytes, 1, size, out->stream) == size && out->good;
}

static void put_number(writer *out, uint32_t number)
{
    put(out, (unsigned char[]){number >> 24 & 255, number >> 16 & 255, number >> 8 & 255, number & 255}, 4);
}

static void begin_chunk(writer *out, const char *name, size_t size)
{
    put_number(out, (uint32_t)size);
    out->crc = 0xFFFFFFFFu;
    put(out, name, 4);
}

static void end_chunk(writer *out)
{
    put_number(out, ~out->crc);
}

/* One stored block a row: no filter, then the pixels. */
static void put_rows(writer *out, const unsigned char *pixels, size_t side)
{
    uint32_t low = 1, high = 0; /* Adler-32 */
    size_t size = 3 * side + 1;
    begin_chunk(out, "IDAT", 2 + side * (5 + size) + 4);
    put(out, "\x78\x01", 2);
    for (size_t row = 0; row < side; row++) {
        unsigned char head[] = {row + 1 == side, size & 255, size >> 8, ~size & 255, ~size >> 8 & 255, 0};
        put(out, head, sizeof head);
        put(out, pixels + row * 3 * side, 3 * side);
        high = (high + low) % 65521;
        for (size_t place = 0; place < 3 * side; place++) {
            low = (low + pixels[row * 3 * side + place]) % 65521;
            high = (high + low) % 65521;
        }
    }
    put_number(out, high << 16 | low);
    end_chunk(out);
}

bool png_write(FILE *stream, const unsigned char *pixels, size_t side)
{
    writer out = {stream, 0, true};
    put(&out, "\x89PNG\r\n\x1a\n", 8);
    begin_chunk(&out, "IHDR", 13);
    put_number(&out, (uint32_t)side);
    put_number(&out, (uint32_t)side);
    put(&out, "\x08\x02\0\0", 5); /* 8 bits, red, green and blue, not interlaced */
    end_chunk(&out);
    put_rows(&out, pixels, side);
    begin_chunk(&out, "IEND", 0);
    end_chunk(&out);
    return out.good;
}
