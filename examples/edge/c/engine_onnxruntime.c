/* engine.h in ONNX Runtime's C API. */
#define _POSIX_C_SOURCE 200112L /* setenv */
#include "engine.h"

#include <onnxruntime_c_api.h>
#include <stdlib.h>

#include "error.h"

struct engine {
    const OrtApi *api;
    OrtEnv *environment;
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtValue *outputs[MOST_TENSORS];
};

static const ONNXTensorElementDataType ELEMENTS[] = {
    [FLOAT32_TENSOR] = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    [INT64_TENSOR] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    [BOOLEAN_TENSOR] = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
};
static const size_t SIZES[] = {[FLOAT32_TENSOR] = sizeof(float), [INT64_TENSOR] = sizeof(int64_t), [BOOLEAN_TENSOR] = 1};

static bool fine(const engine *loaded, OrtStatus *status, const char *doing)
{
    if (!status)
        return true;
    failed("ONNX Runtime failed while %s: %.600s", doing, loaded->api->GetErrorMessage(status));
    loaded->api->ReleaseStatus(status);
    return false;
}

static bool load(engine *loaded, const char *path)
{
    setenv("ORT_DISABLE_TELEMETRY", "1", 0); /* before the library starts: it tells nobody of its use */
    const OrtApi *api = loaded->api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api)
        return failed("ONNX Runtime %s is older than the header that this program was built with",
                      OrtGetApiBase()->GetVersionString());
    OrtSessionOptions *options = NULL;
    bool done = fine(loaded, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edge", &loaded->environment), "starting") &&
                fine(loaded, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &loaded->memory), "starting") &&
                fine(loaded, api->CreateSessionOptions(&options), "starting") &&
                fine(loaded, api->CreateSession(loaded->environment, path, options, &loaded->session), "loading a graph");
    if (options)
        api->ReleaseSessionOptions(options);
    return done;
}

engine *engine_load(const char *path)
{
    engine *loaded = calloc(1, sizeof *loaded);
    if (!loaded)
        failed("out of memory");
    if (loaded && load(loaded, path))
        return loaded;
    engine_free(loaded);
    return NULL;
}

static bool give(const engine *loaded, const tensor *input, OrtValue **made)
{
    size_t size = SIZES[input->type];
    for (size_t axis = 0; axis < input->axes; axis++)
        size *= (size_t)input->shape[axis];
    OrtStatus *status = loaded->api->CreateTensorWithDataAsOrtValue(
        loaded->memory, (void *)input->data, size, input->shape, input->axes, ELEMENTS[input->type], made);
    return fine(loaded, status, "making a tensor");
}

static bool describe(const engine *loaded, OrtValue *made, tensor *output)
{
    const OrtApi *api = loaded->api;
    OrtTensorTypeAndShapeInfo *facts = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t axes = 0;
    void *data = NULL;
    bool done = fine(loaded, api->GetTensorTypeAndShape(made, &facts), "reading a tensor") &&
                fine(loaded, api->GetTensorElementType(facts, &type), "reading a type") &&
                fine(loaded, api->GetDimensionsCount(facts, &axes), "reading a shape") &&
                fine(loaded, api->GetTensorMutableData(made, &data), "reading a tensor");
    if (done && (type != ELEMENTS[output->type] || axes != output->axes))
        done = failed("output '%s' of the graph has another type or number of axes", output->name);
    done = done && fine(loaded, api->GetDimensions(facts, output->shape, axes), "reading a shape");
    output->data = data;
    if (facts)
        api->ReleaseTensorTypeAndShapeInfo(facts);
    return done;
}

static void drop(const engine *loaded, OrtValue *values[MOST_TENSORS])
{
    for (size_t place = 0; place < MOST_TENSORS; place++)
        if (values[place]) {
            loaded->api->ReleaseValue(values[place]);
            values[place] = NULL;
        }
}

bool engine_run(engine *loaded, const tensor *inputs, size_t input_count, tensor *outputs, size_t output_count)
{
    const char *input_names[MOST_TENSORS], *output_names[MOST_TENSORS];
    OrtValue *given[MOST_TENSORS] = {0};
    drop(loaded, loaded->outputs);
    bool done = true;
    for (size_t place = 0; done && place < input_count; place++) {
        input_names[place] = inputs[place].name;
        done = give(loaded, inputs + place, given + place);
    }
    for (size_t place = 0; place < output_count; place++)
        output_names[place] = outputs[place].name;
    done = done && fine(loaded,
                        loaded->api->Run(loaded->session, NULL, input_names, (const OrtValue *const *)given, input_count,
                                         output_names, output_count, loaded->outputs),
                        "running a graph");
    drop(loaded, given);
    for (size_t place = 0; done && place < output_count; place++)
        done = describe(loaded, loaded->outputs[place], outputs + place);
    return done;
}

void engine_free(engine *loaded)
{
    if (!loaded)
        return;
    const OrtApi *api = loaded->api;
    if (api) {
        drop(loaded, loaded->outputs);
        if (loaded->session)
            api->ReleaseSession(loaded->session);
        if (loaded->memory)
            api->ReleaseMemoryInfo(loaded->memory);
        if (loaded->environment)
            api->ReleaseEnv(loaded->environment);
    }
    free(loaded);
}
