/* {"events": [{"uuid": "GPU-...", "type": 8, "data": 79}]}: what has happened, oldest first; "gpuInstanceId" and
 * "computeInstanceId" are optional. Every set is told each event once, those that were there when it was made too; an
 * event whose device and type a set has not registered is passed over. So the list may only grow while a set exists.
 * A device with "SupportedEventTypes" takes any type, as an H100 does; one without takes none. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct registration {
    struct registration *next;
    nvmlDevice_t device;
    unsigned long long types;
};

struct nvmlEventSet_st {
    struct registration *registered;
    size_t told;
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    SYSTEM_QUERY(session);
    REQUIRE_ARGUMENT(set != NULL);
    *set = calloc(1, sizeof **set);
    return *set == NULL ? NVML_ERROR_MEMORY : NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    SYSTEM_QUERY(session);
    REQUIRE_ARGUMENT(set != NULL);
    while (set->registered != NULL) {
        struct registration *next = set->registered->next;
        free(set->registered);
        set->registered = next;
    }
    free(set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    QUERY(session, device);
    const Json *supported = json_get(session.device.facts, "SupportedEventTypes");
    REQUIRE_ARGUMENT(set != NULL);
    REQUIRE(json_known(supported), NVML_ERROR_NOT_SUPPORTED);
    struct registration *registered = calloc(1, sizeof *registered);
    REQUIRE(registered != NULL, NVML_ERROR_MEMORY);
    *registered = (struct registration){set->registered, device, types};
    set->registered = registered;
    return NVML_SUCCESS;
}

static nvmlDevice_t who_registered(nvmlEventSet_t set, const Json *event)
{
    const Json *uuid = json_get(event, "uuid");
    unsigned long long type = json_unsigned(json_get(event, "type"));
    for (const struct registration *r = set->registered; r != NULL; r = r->next)
        if (uuid != NULL && uuid->kind == JSON_TEXT && strcmp(r->device->uuid, uuid->text) == 0 && (r->types & type))
            return r->device;
    return NULL;
}

static unsigned int id_or_none(const Json *answer)
{
    return json_known(answer) ? (unsigned int)json_unsigned(answer) : 0xFFFFFFFFU;
}

/* The next event of the set, or a timeout. */
static nvmlReturn_t next_event(const Session *session, nvmlEventSet_t set, nvmlEventData_t *data)
{
    const Json *event = json_at(json_get(session->machine, "events"), set->told);
    for (; event != NULL; event = event->next) {
        nvmlDevice_t device = who_registered(set, event);
        set->told++;
        if (device == NULL)
            continue;
        *data = (nvmlEventData_t){
            .device = device,
            .eventType = json_unsigned(json_get(event, "type")),
            .eventData = json_unsigned(json_get(event, "data")),
            .gpuInstanceId = id_or_none(json_get(event, "gpuInstanceId")),
            .computeInstanceId = id_or_none(json_get(event, "computeInstanceId")),
        };
        return NVML_SUCCESS;
    }
    return NVML_ERROR_TIMEOUT;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static nvmlReturn_t look_for_event(nvmlEventSet_t set, nvmlEventData_t *data, const char *symbol)
{
    Session session __attribute__((cleanup(session_leave))) = {0};
    nvmlReturn_t code = session_enter(&session, symbol, 0, NULL);
    REQUIRE(code == NVML_SUCCESS, code);
    REQUIRE_ARGUMENT(set != NULL && data != NULL);
    return next_event(&session, set, data);
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    const struct timespec pause = {0, 10 * 1000 * 1000};
    double end = now() + (double)timeoutms / 1e3;
    for (;;) {
        /* Others may query, and the description may change, between two looks. */
        nvmlReturn_t code = look_for_event(set, data, __func__);
        if (code != NVML_ERROR_TIMEOUT || now() >= end)
            return code;
        nanosleep(&pause, NULL);
    }
}
