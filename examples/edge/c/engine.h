/* What runs a graph: engine_openvino.c or engine_onnxruntime.c, chosen when the program is linked. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_AXES = 4, MOST_TENSORS = 8 };

typedef enum { FLOAT32_TENSOR, INT64_TENSOR, BOOLEAN_TENSOR } element;

typedef struct {
    const char *name;
    element type;
    size_t axes;
    int64_t shape[MOST_AXES];
    const void *data;
} tensor;

typedef struct engine engine;

/* Loads an ONNX file to compute in float32 on the CPU; NULL and a failure where that can't be. */
engine *engine_load(const char *path);

/* Runs the graph. Of each output, name, type and number of axes are given, and shape and data are filled in; the data
 * lives until the next run or `engine_free`. At most MOST_TENSORS each. */
bool engine_run(engine *loaded, const tensor *inputs, size_t input_count, tensor *outputs, size_t output_count);

/* Frees the engine; NULL is none. */
void engine_free(engine *loaded);

#endif
