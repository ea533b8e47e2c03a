/* engine.h in OpenVINO's C API, which reads ONNX files itself. */
#include "engine.h"

#include <openvino/c/openvino.h>
#include <stdlib.h>

#include "error.h"

static const char DEVICE[] = "CPU";

struct engine {
    ov_core_t *core;
    ov_compiled_model_t *compiled;
    ov_infer_request_t *request;
    ov_tensor_t *outputs[MOST_TENSORS];
};

static const ov_element_type_e ELEMENTS[] = {[FLOAT32_TENSOR] = F32, [INT64_TENSOR] = I64, [BOOLEAN_TENSOR] = BOOLEAN};

static bool fine(ov_status_e status, const char *doing)
{
    if (status == OK)
        return true;
    const char *why = ov_get_last_err_msg();
    failed("OpenVINO failed while %s: %.600s", doing, why ? why : ov_get_error_info(status));
    ov_free(why);
    return false;
}

static bool load(engine *loaded, const char *path)
{
    ov_model_t *model = NULL;
    bool done = fine(ov_core_create(&loaded->core), "starting") &&
                fine(ov_core_read_model(loaded->core, path, NULL, &model), "reading a graph") &&
                /* Some CPUs would compute in bfloat16 unless told otherwise. */
                fine(ov_core_compile_model(loaded->core, model, DEVICE, 2, &loaded->compiled,
                                           ov_property_key_hint_inference_precision, "f32"),
                     "compiling a graph") &&
                fine(ov_compiled_model_create_infer_request(loaded->compiled, &loaded->request), "loading a graph");
    if (model)
        ov_model_free(model);
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

static bool give(engine *loaded, const tensor *input)
{
    ov_shape_t shape = {0};
    ov_tensor_t *made = NULL;
    bool done = fine(ov_shape_create((int64_t)input->axes, input->shape, &shape), "making a shape") &&
                fine(ov_tensor_create_from_host_ptr(ELEMENTS[input->type], shape, (void *)input->data, &made),
                     "making a tensor") &&
                fine(ov_infer_request_set_tensor(loaded->request, input->name, made), "taking a tensor");
    if (made)
        ov_tensor_free(made);
    if (shape.dims)
        ov_shape_free(&shape);
    return done;
}

static bool describe(ov_tensor_t *made, tensor *output)
{
    ov_shape_t shape = {0};
    ov_element_type_e type;
    void *data = NULL;
    bool done = fine(ov_tensor_get_element_type(made, &type), "reading a type") &&
                fine(ov_tensor_get_shape(made, &shape), "reading a shape") &&
                fine(ov_tensor_data(made, &data), "reading a tensor");
    if (done && (type != ELEMENTS[output->type] || shape.rank != (int64_t)output->axes))
        done = failed("output '%s' of the graph has another type or number of axes", output->name);
    for (size_t axis = 0; done && axis < output->axes; axis++)
        output->shape[axis] = shape.dims[axis];
    output->data = data;
    if (shape.dims)
        ov_shape_free(&shape);
    return done;
}

static void drop_outputs(engine *loaded)
{
    for (size_t place = 0; place < MOST_TENSORS; place++)
        if (loaded->outputs[place]) {
            ov_tensor_free(loaded->outputs[place]);
            loaded->outputs[place] = NULL;
        }
}

bool engine_run(engine *loaded, const tensor *inputs, size_t input_count, tensor *outputs, size_t output_count)
{
    drop_outputs(loaded);
    bool done = true;
    for (size_t place = 0; done && place < input_count; place++)
        done = give(loaded, inputs + place);
    done = done && fine(ov_infer_request_infer(loaded->request), "running a graph");
    for (size_t place = 0; done && place < output_count; place++)
        done = fine(ov_infer_request_get_tensor(loaded->request, outputs[place].name, &loaded->outputs[place]),
                    "giving a tensor") &&
               describe(loaded->outputs[place], outputs + place);
    return done;
}

void engine_free(engine *loaded)
{
    if (!loaded)
        return;
    drop_outputs(loaded);
    if (loaded->request)
        ov_infer_request_free(loaded->request);
    if (loaded->compiled)
        ov_compiled_model_free(loaded->compiled);
    if (loaded->core)
        ov_core_free(loaded->core);
    free(loaded);
}
