/* A caption in, a picture out: the program of README.md. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "engine.h"
#include "error.h"
#include "files.h"
#include "noise.h"
#include "tokenizer.h"

enum { MOST_WORDS = 1000, WRONG_USAGE = 2 };

/* The known words of a caption, at least one. */
static bool read_caption(const bundle *model, const char *caption, tokens *words)
{
    vocabulary *known = vocabulary_read(model->vocabulary, model->vocabulary_size);
    bool done = known && tokenize(known, caption, words);
    vocabulary_free(known);
    if (!done)
        return false;
    if (words->count == 0 && words->unknown == 0)
        return failed("the caption has no words");
    if (words->count == 0)
        return failed("the caption has only unknown words; the first is '%s'", words->example);
    if (words->count > MOST_WORDS)
        return failed("the caption is too long: found %zu words; expected at most %d", words->count, MOST_WORDS);
    if (words->unknown)
        fprintf(stderr, "edge: left out %zu unknown words; the first is '%s'\n", words->unknown, words->example);
    return true;
}

/* Images in [-1, 1], channel by channel, to pixels: (x + 1) * 127.5, rounded. */
static bool to_pixels(const float *image, size_t side, unsigned char *pixels)
{
    for (size_t channel = 0; channel < 3; channel++)
        for (size_t place = 0; place < side * side; place++) {
            float value = image[channel * side * side + place];
            if (!isfinite(value))
                return failed("the model made values that are not finite");
            pixels[3 * place + channel] = (unsigned char)fminf(fmaxf(rintf((value + 1.0f) * 127.5f), 0.0f), 255.0f);
        }
    return true;
}

static bool encode(engine *text_encoder, const tokens *words, tensor features[3])
{
    int64_t count = (int64_t)words->count;
    tensor inputs[] = {
        {"captions", INT64_TENSOR, 2, {1, count}, words->numbers},
        {"lengths", INT64_TENSOR, 1, {1}, &count},
    };
    features[0] = (tensor){.name = "sentence", .type = FLOAT32_TENSOR, .axes = 2};
    features[1] = (tensor){.name = "words", .type = FLOAT32_TENSOR, .axes = 3};
    features[2] = (tensor){.name = "mask", .type = BOOLEAN_TENSOR, .axes = 2};
    return engine_run(text_encoder, inputs, 2, features, 3);
}

/* The last stage's image f32 [1, 3, side, side]; `z` and `eps` are the noise. */
static bool generate(engine *generator, const bundle *model, const tensor features[3], const float *z, const float *eps,
                     tensor *image)
{
    char name[32];
    int64_t side = (int64_t)model->picture;
    snprintf(name, sizeof name, "image_%zu", model->picture);
    *image = (tensor){.name = name, .type = FLOAT32_TENSOR, .axes = 4};
    size_t count = 0;
    tensor inputs[5];
    inputs[count++] = features[0];
    inputs[count++] = (tensor){"z", FLOAT32_TENSOR, 2, {1, (int64_t)model->z}, z};
    if (model->looks_at_words) {
        inputs[count++] = features[1];
        inputs[count++] = features[2];
    }
    if (model->eps)
        inputs[count++] = (tensor){"eps", FLOAT32_TENSOR, 2, {1, (int64_t)model->eps}, eps};
    bool done = engine_run(generator, inputs, count, image, 1);
    image->name = NULL;
    if (done && memcmp(image->shape, (int64_t[]){1, 3, side, side}, sizeof image->shape) != 0)
        return failed("the generator's image is not %zu pixels wide", model->picture);
    return done;
}

static bool paint(const bundle *model, const tokens *words, uint64_t seed, unsigned char *pixels)
{
    tensor features[3], image;
    float *z = malloc(model->z * sizeof *z), *eps = malloc((model->eps + 1) * sizeof *eps); /* +1: not every system allocates nothing */
    engine *text_encoder = NULL, *generator = NULL;
    bool done = (z && eps) || failed("out of memory");
    if (done) {
        /* the first picture of the first caption */
        truncated_noise_for(seed, 0, 0, Z_STREAM, model->clip, model->scale, z, model->z);
        noise_for(seed, 0, 0, EPS_STREAM, eps, model->eps);
    }
    done = done && (text_encoder = engine_load(model->text_encoder)) && encode(text_encoder, words, features);
    done = done && (generator = engine_load(model->generator)) && generate(generator, model, features, z, eps, &image);
    done = done && to_pixels(image.data, model->picture, pixels);
    engine_free(generator);
    engine_free(text_encoder);
    free(z);
    free(eps);
    return done;
}

static bool run(const char *folder, const char *caption, const char *path, uint64_t seed)
{
    bundle model = {0};
    tokens words = {0};
    unsigned char *pixels = NULL;
    bool done = check_picture(path) && bundle_open(&model, folder) && read_caption(&model, caption, &words);
    done = done && ((pixels = malloc(3 * model.picture * model.picture)) || failed("out of memory"));
    done = done && paint(&model, &words, seed, pixels) && write_picture(path, pixels, model.picture);
    free(pixels);
    free(words.numbers);
    bundle_close(&model);
    return done;
}

static bool read_seed(const char *text, uint64_t *seed)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        return failed("the seed is not a whole number from 0 to 2**64 - 1: found '%.60s'", text);
    *seed = number;
    return true;
}

int main(int count, char **arguments)
{
    uint64_t seed = 0;
    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: %s MODEL_FOLDER CAPTION PICTURE.png [SEED]\n", count ? arguments[0] : "edge");
        return WRONG_USAGE;
    }
    if ((count < 5 || read_seed(arguments[4], &seed)) && run(arguments[1], arguments[2], arguments[3], seed))
        return EXIT_SUCCESS;
    fprintf(stderr, "edge: %s\n", failure());
    return EXIT_FAILURE;
}
