/* The system, the handles, and what a device answers about itself in one value or one struct. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

/* ---- the system ---- */

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    SYSTEM_QUERY(session);
    return answer_text(json_get(session.machine, "DriverVersion"), version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    SYSTEM_QUERY(session);
    return answer_text(json_get(session.machine, "NVMLVersion"), version, length);
}

static nvmlReturn_t cuda_version(const Session *session, int *version)
{
    const Json *answer = json_get(session->machine, "CudaDriverVersion");
    REQUIRE_ARGUMENT(version != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *version = (int)json_unsigned(answer);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    SYSTEM_QUERY(session);
    return cuda_version(&session, version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    SYSTEM_QUERY(session);
    return cuda_version(&session, version);
}

/* {"ProcessName": {"1258": "python"}}; a process that is not described is not found. */
nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    SYSTEM_QUERY(session);
    char key[16];
    snprintf(key, sizeof key, "%u", pid);
    const Json *answer = json_get(json_get(session.machine, "ProcessName"), key);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_FOUND);
    return answer_text(answer, name, length);
}

/* ---- handles ---- */

static nvmlReturn_t give_handle(const Json *facts, const Json *parent, const char *symbol, nvmlDevice_t *device)
{
    nvmlReturn_t code = told_to_fail(facts, symbol);
    REQUIRE(code == NVML_SUCCESS, code);
    REQUIRE(!is_lost(parent == NULL ? facts : parent, 1), NVML_ERROR_GPU_IS_LOST);
    *device = handle_of(facts);
    return *device == NULL ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    SYSTEM_QUERY(session);
    REQUIRE_ARGUMENT(count != NULL);
    *count = (unsigned int)json_count(json_get(session.machine, "gpus"));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    SYSTEM_QUERY(session);
    const Json *gpu = json_at(json_get(session.machine, "gpus"), index);
    REQUIRE_ARGUMENT(device != NULL && gpu != NULL);
    return give_handle(gpu, NULL, __func__, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    SYSTEM_QUERY(session);
    Device found;
    REQUIRE_ARGUMENT(uuid != NULL && device != NULL);
    REQUIRE(find_device(session.machine, uuid, &found), NVML_ERROR_NOT_FOUND);
    return give_handle(found.facts, found.parent, __func__, device);
}

typedef struct {
    unsigned int domain, bus, device, function;
} PciAddress;

static int read_pci(const Json *text, PciAddress *out)
{
    return text != NULL && text->kind == JSON_TEXT &&
           sscanf(text->text, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &out->function) == 4;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    SYSTEM_QUERY(session);
    PciAddress wanted, own;
    REQUIRE_ARGUMENT(pciBusId != NULL && device != NULL);
    const Json given = {.kind = JSON_TEXT, .text = (char *)pciBusId};
    REQUIRE_ARGUMENT(read_pci(&given, &wanted));
    const Json *gpus = json_get(session.machine, "gpus");
    for (const Json *gpu = gpus == NULL ? NULL : gpus->first; gpu != NULL; gpu = gpu->next)
        if (read_pci(json_get(json_get(gpu, "PciInfo"), "busId"), &own) && memcmp(&own, &wanted, sizeof own) == 0)
            return give_handle(gpu, NULL, __func__, device);
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(index != NULL);
    *index = session.device.index;
    return NVML_SUCCESS;
}

/* ---- one value ---- */

#define TEXT(query)                                                                             \
    nvmlReturn_t nvmlDeviceGet##query(nvmlDevice_t device, char *out, unsigned int length)      \
    {                                                                                           \
        QUERY(session, device);                                                                 \
        return answer_text(json_get(session.device.facts, #query), out, length);                \
    }

#define NUMBER_KEYED(query, answer_key, type)                                                   \
    nvmlReturn_t nvmlDeviceGet##query(nvmlDevice_t device, type *out)                           \
    {                                                                                           \
        QUERY(session, device);                                                                 \
        const Json *answer = json_get(session.device.facts, answer_key);                        \
        REQUIRE_ARGUMENT(out != NULL);                                                          \
        REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);                                  \
        *out = (type)json_unsigned(answer);                                                     \
        return NVML_SUCCESS;                                                                    \
    }
#define NUMBER(query, type) NUMBER_KEYED(query, #query, type)

/* [first, second] */
#define PAIR(query, type)                                                                       \
    nvmlReturn_t nvmlDeviceGet##query(nvmlDevice_t device, type *first, type *second)           \
    {                                                                                           \
        QUERY(session, device);                                                                 \
        const Json *answer = json_get(session.device.facts, #query);                            \
        REQUIRE_ARGUMENT(first != NULL && second != NULL);                                      \
        REQUIRE(json_count(answer) == 2, NVML_ERROR_NOT_SUPPORTED);                             \
        *first = (type)json_unsigned(json_at(answer, 0));                                       \
        *second = (type)json_unsigned(json_at(answer, 1));                                      \
        return NVML_SUCCESS;                                                                    \
    }

TEXT(Name)
TEXT(UUID)
TEXT(Serial)
TEXT(VbiosVersion)
TEXT(BoardPartNumber)
TEXT(InforomImageVersion)

NUMBER(MinorNumber, unsigned int)
NUMBER(NumaNodeId, unsigned int)
NUMBER(ModuleId, unsigned int)
NUMBER(BoardId, unsigned int)
NUMBER(MultiGpuBoard, unsigned int)
NUMBER(Brand, nvmlBrandType_t)
NUMBER(Architecture, nvmlDeviceArchitecture_t)
NUMBER(BusType, nvmlBusType_t)
NUMBER(ComputeMode, nvmlComputeMode_t)
NUMBER(DisplayActive, nvmlEnableState_t)
NUMBER(DisplayMode, nvmlEnableState_t)
NUMBER(PersistenceMode, nvmlEnableState_t)
NUMBER(VirtualizationMode, nvmlGpuVirtualizationMode_t)
NUMBER(NumGpuCores, unsigned int)
NUMBER(MemoryBusWidth, unsigned int)
NUMBER(PcieSpeed, unsigned int)
NUMBER(PcieLinkMaxSpeed, unsigned int)
NUMBER(PcieReplayCounter, unsigned int)
NUMBER(CurrPcieLinkGeneration, unsigned int)
NUMBER(MaxPcieLinkGeneration, unsigned int)
NUMBER(CurrPcieLinkWidth, unsigned int)
NUMBER(MaxPcieLinkWidth, unsigned int)
NUMBER(PerformanceState, nvmlPstates_t)
NUMBER(PowerUsage, unsigned int)
NUMBER(PowerManagementLimit, unsigned int)
NUMBER(EnforcedPowerLimit, unsigned int)
NUMBER(TotalEnergyConsumption, unsigned long long)
NUMBER(SupportedEventTypes, unsigned long long)
NUMBER(CurrentClocksEventReasons, unsigned long long)
NUMBER(SupportedClocksEventReasons, unsigned long long)
/* Event reasons by the name they had before driver 535. */
NUMBER_KEYED(CurrentClocksThrottleReasons, "CurrentClocksEventReasons", unsigned long long)
NUMBER_KEYED(SupportedClocksThrottleReasons, "SupportedClocksEventReasons", unsigned long long)

PAIR(CudaComputeCapability, int)
PAIR(EccMode, nvmlEnableState_t)
PAIR(MigMode, unsigned int)

/* ---- one struct ---- */

/* {"total", "reserved", "used"}: bytes. Version 1 counts what the driver reserves as used, version 2 names it. Of any
 * further version the real driver (580.159.04) says that it has no such function. */
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "MemoryInfo");
    REQUIRE_ARGUMENT(memory != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    memory->total = json_unsigned(json_get(answer, "total"));
    memory->used = json_unsigned(json_get(answer, "used")) + json_unsigned(json_get(answer, "reserved"));
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "MemoryInfo");
    REQUIRE_ARGUMENT(memory != NULL);
    REQUIRE(memory->version == nvmlMemory_v2, NVML_ERROR_FUNCTION_NOT_FOUND);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    memory->total = json_unsigned(json_get(answer, "total"));
    memory->used = json_unsigned(json_get(answer, "used"));
    memory->reserved = json_unsigned(json_get(answer, "reserved"));
    memory->free = memory->total - memory->used - memory->reserved;
    return NVML_SUCCESS;
}

nvmlReturn_t answer_pci(const Json *answer, nvmlPciInfo_t *out)
{
    PciAddress at;
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(read_pci(json_get(answer, "busId"), &at), NVML_ERROR_NOT_SUPPORTED);
    memset(out, 0, sizeof *out);
    out->domain = at.domain;
    out->bus = at.bus;
    out->device = at.device;
    out->pciDeviceId = (unsigned int)json_unsigned(json_get(answer, "pciDeviceId"));
    out->pciSubSystemId = (unsigned int)json_unsigned(json_get(answer, "pciSubSystemId"));
    snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.%X", at.domain, at.bus, at.device, at.function);
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.%X", at.domain & 0xFFFF, at.bus, at.device,
             at.function);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    QUERY(session, device);
    return answer_pci(json_get(session.device.facts, "PciInfo"), pci);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "UtilizationRates");
    REQUIRE_ARGUMENT(utilization != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    utilization->gpu = (unsigned int)json_unsigned(json_get(answer, "gpu"));
    utilization->memory = (unsigned int)json_unsigned(json_get(answer, "memory"));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "Temperature");
    REQUIRE_ARGUMENT(out != NULL && sensor == NVML_TEMPERATURE_GPU);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned int)json_unsigned(answer);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "Temperature");
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(out->version == nvmlTemperature_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    REQUIRE_ARGUMENT(out->sensorType == NVML_TEMPERATURE_GPU);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    out->temperature = (int)json_unsigned(answer);
    return NVML_SUCCESS;
}

/* ---- affinity ---- */

/* A bit mask as 64-bit words, least first: as many as the caller has room for, 0 past the last one described. */
static nvmlReturn_t answer_mask(const Json *words, unsigned int size, unsigned long *out)
{
    REQUIRE_ARGUMENT(out != NULL && size > 0);
    REQUIRE(json_known(words), NVML_ERROR_NOT_SUPPORTED);
    for (unsigned int i = 0; i < size; i++)
        out[i] = (unsigned long)json_unsigned(json_at(words, i));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int size, unsigned long *out)
{
    QUERY(session, device);
    return answer_mask(json_get(session.device.facts, "CpuAffinity"), size, out);
}

/* {"node": [...], "socket": [...]}; where a scope is not described, what CpuAffinity says. */
nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int size, unsigned long *out,
                                                 nvmlAffinityScope_t scope)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(scope == NVML_AFFINITY_SCOPE_NODE || scope == NVML_AFFINITY_SCOPE_SOCKET);
    const Json *within = json_get(session.device.facts, "CpuAffinityWithinScope");
    const Json *words = json_get(within, scope == NVML_AFFINITY_SCOPE_NODE ? "node" : "socket");
    return answer_mask(json_known(words) ? words : json_get(session.device.facts, "CpuAffinity"), size, out);
}

nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int size, unsigned long *out,
                                         nvmlAffinityScope_t scope)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(scope == NVML_AFFINITY_SCOPE_NODE || scope == NVML_AFFINITY_SCOPE_SOCKET);
    return answer_mask(json_get(session.device.facts, "MemoryAffinity"), size, out);
}
