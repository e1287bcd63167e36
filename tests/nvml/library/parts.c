/* MIG: "mig" on a GPU lists its MIG devices by index, each a map of answers like a GPU's own; null is an empty slot. */
#include "fake.h"

#include <string.h>

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *out)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(out != NULL);
    *out = session.device.parent != NULL;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "MaxMigDeviceCount");
    REQUIRE_ARGUMENT(out != NULL && session.device.parent == NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned int)json_unsigned(answer);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *out)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(out != NULL && session.device.parent == NULL);
    REQUIRE(json_known(json_get(session.device.facts, "MigMode")), NVML_ERROR_NOT_SUPPORTED);
    const Json *part = json_at(json_get(session.device.facts, "mig"), index);
    REQUIRE(json_known(part), NVML_ERROR_NOT_FOUND);
    nvmlReturn_t code = told_to_fail(part, __func__);
    REQUIRE(code == NVML_SUCCESS, code);
    *out = handle_of(part);
    return *out == NULL ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(out != NULL && session.device.parent != NULL);
    *out = handle_of(session.device.parent);
    return *out == NULL ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}

static nvmlReturn_t instance_id(const Session *session, const char *key, unsigned int *out)
{
    const Json *answer = json_get(session->device.facts, key);
    REQUIRE_ARGUMENT(out != NULL && session->device.parent != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned int)json_unsigned(answer);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *out)
{
    QUERY(session, device);
    return instance_id(&session, "GpuInstanceId", out);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *out)
{
    QUERY(session, device);
    return instance_id(&session, "ComputeInstanceId", out);
}

/* {"Attributes": {"multiprocessorCount": 14, "gpuInstanceSliceCount": 1, ..., "memorySizeMB": 4864}} */
nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "Attributes");
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
#define FIELD(name) out->name = (unsigned int)json_unsigned(json_get(answer, #name))
    FIELD(multiprocessorCount);
    FIELD(sharedCopyEngineCount);
    FIELD(sharedDecoderCount);
    FIELD(sharedEncoderCount);
    FIELD(sharedJpegCount);
    FIELD(sharedOfaCount);
    FIELD(gpuInstanceSliceCount);
    FIELD(computeInstanceSliceCount);
#undef FIELD
    out->memorySizeMB = json_unsigned(json_get(answer, "memorySizeMB"));
    return NVML_SUCCESS;
}
