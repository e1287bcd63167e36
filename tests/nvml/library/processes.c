/* What runs on a device: {"ComputeRunningProcesses": [{"pid", "usedGpuMemory", "gpuInstanceId", "computeInstanceId"}]},
 * memory in bytes or null where it is hidden, the instances null without MIG. All are listed on the GPU; a MIG device
 * answers those of its parent that run on its own instances. A device without the list has none. */
#include "fake.h"

static unsigned int id_or_none(const Json *answer)
{
    return json_known(answer) ? (unsigned int)json_unsigned(answer) : 0xFFFFFFFFU;
}

static int is_here(const Device *device, const Json *process)
{
    return device->parent == NULL ||
           (id_or_none(json_get(process, "gpuInstanceId")) == id_or_none(json_get(device->facts, "GpuInstanceId")) &&
            id_or_none(json_get(process, "computeInstanceId")) ==
                id_or_none(json_get(device->facts, "ComputeInstanceId")));
}

static nvmlReturn_t answer_processes(const Device *device, const char *key, unsigned int *count, nvmlProcessInfo_t *out)
{
    const Json *list = json_get(device->parent != NULL ? device->parent : device->facts, key);
    unsigned int room, here = 0;
    REQUIRE_ARGUMENT(count != NULL);
    room = out == NULL ? 0 : *count;
    for (const Json *process = list == NULL ? NULL : list->first; process != NULL; process = process->next) {
        if (!is_here(device, process))
            continue;
        if (here < room) {
            const Json *used = json_get(process, "usedGpuMemory");
            out[here] = (nvmlProcessInfo_t){
                .pid = (unsigned int)json_unsigned(json_get(process, "pid")),
                .usedGpuMemory = json_known(used) ? json_unsigned(used) : (unsigned long long)NVML_VALUE_NOT_AVAILABLE,
                .gpuInstanceId = id_or_none(json_get(process, "gpuInstanceId")),
                .computeInstanceId = id_or_none(json_get(process, "computeInstanceId")),
            };
        }
        here++;
    }
    *count = here;
    return here <= room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

/* Versions 2 (drivers before 510) and 3 answer in the same struct. */
#define PROCESSES(query, version)                                                                               \
    nvmlReturn_t nvmlDeviceGet##query##version(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *out) \
    {                                                                                                           \
        QUERY(session, device);                                                                                 \
        return answer_processes(&session.device, #query, count, out);                                           \
    }

PROCESSES(ComputeRunningProcesses, _v2)
PROCESSES(ComputeRunningProcesses, _v3)
PROCESSES(GraphicsRunningProcesses, _v2)
PROCESSES(GraphicsRunningProcesses, _v3)
PROCESSES(MPSComputeRunningProcesses, _v2)
PROCESSES(MPSComputeRunningProcesses, _v3)
