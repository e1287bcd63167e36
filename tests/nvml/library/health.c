/* Memory that has gone bad, and counters by field id. */
#include "fake.h"

#include <stdio.h>

/* {"RemappedRows": [corrected, uncorrected, pending, failed]} */
nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                       unsigned int *pending, unsigned int *failed)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "RemappedRows");
    REQUIRE_ARGUMENT(corrected != NULL && uncorrected != NULL && pending != NULL && failed != NULL);
    REQUIRE(json_count(answer) == 4, NVML_ERROR_NOT_SUPPORTED);
    *corrected = (unsigned int)json_unsigned(json_at(answer, 0));
    *uncorrected = (unsigned int)json_unsigned(json_at(answer, 1));
    *pending = (unsigned int)json_unsigned(json_at(answer, 2));
    *failed = (unsigned int)json_unsigned(json_at(answer, 3));
    return NVML_SUCCESS;
}

/* {"RetiredPages": {"single_bit": [[address, time]], "double_bit": []}} */
static nvmlReturn_t answer_pages(const Session *session, nvmlPageRetirementCause_t cause, unsigned int *count,
                                 unsigned long long *addresses, unsigned long long *times)
{
    const Json *causes = json_get(session->device.facts, "RetiredPages");
    REQUIRE_ARGUMENT(count != NULL && cause < NVML_PAGE_RETIREMENT_CAUSE_COUNT);
    const char *key = cause == NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR ? "double_bit" : "single_bit";
    const Json *pages = json_get(causes, key);
    REQUIRE(json_known(pages), NVML_ERROR_NOT_SUPPORTED);
    unsigned int room = addresses == NULL ? 0 : *count, here = 0;
    for (const Json *page = pages->first; page != NULL; page = page->next, here++) {
        if (here >= room)
            continue;
        addresses[here] = json_unsigned(json_at(page, 0));
        if (times != NULL)
            times[here] = json_unsigned(json_at(page, 1));
    }
    *count = here;
    return here <= room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count,
                                       unsigned long long *addresses)
{
    QUERY(session, device);
    return answer_pages(&session, cause, count, addresses, NULL);
}

nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count,
                                          unsigned long long *addresses, unsigned long long *times)
{
    QUERY(session, device);
    /* Asked for the count alone, a caller may leave the last argument out: it is not read then. */
    return answer_pages(&session, cause, count, addresses, addresses == NULL ? NULL : times);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "RetiredPagesPendingStatus");
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = (nvmlEnableState_t)json_unsigned(answer);
    return NVML_SUCCESS;
}

static const char *error_name(nvmlMemoryErrorType_t type)
{
    static const char *const names[] = {"corrected", "uncorrected"};
    return (unsigned int)type < 2 ? names[type] : NULL;
}

static const char *counter_name(nvmlEccCounterType_t type)
{
    static const char *const names[] = {"volatile", "aggregate"};
    return (unsigned int)type < 2 ? names[type] : NULL;
}

/* {"TotalEccErrors": {"uncorrected": {"volatile": 0, "aggregate": 3}}} */
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t error, nvmlEccCounterType_t counter,
                                         unsigned long long *out)
{
    QUERY(session, device);
    REQUIRE_ARGUMENT(out != NULL && error_name(error) != NULL && counter_name(counter) != NULL);
    const Json *errors = json_get(json_get(session.device.facts, "TotalEccErrors"), error_name(error));
    const Json *answer = json_get(errors, counter_name(counter));
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = json_unsigned(answer);
    return NVML_SUCCESS;
}

/* {"MemoryErrorCounter": {"uncorrected": {"volatile": {"dram": 3, "sram": 0}}}} */
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t error,
                                             nvmlEccCounterType_t counter, nvmlMemoryLocation_t location,
                                             unsigned long long *out)
{
    static const char *const places[] = {"l1", "l2", "dram", "register", "texture", "shared", "cbu", "sram"};
    QUERY(session, device);
    REQUIRE_ARGUMENT(out != NULL && error_name(error) != NULL && counter_name(counter) != NULL);
    REQUIRE_ARGUMENT((size_t)location < sizeof places / sizeof *places);
    const Json *errors = json_get(json_get(session.device.facts, "MemoryErrorCounter"), error_name(error));
    const Json *answer = json_get(json_get(errors, counter_name(counter)), places[location]);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    *out = json_unsigned(answer);
    return NVML_SUCCESS;
}

/* {"FieldValues": {"91": 18, "138:0": 5}}: a field's number, or its number and scope. Each has its own return code. */
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    QUERY(session, device);
    const Json *answers = json_get(session.device.facts, "FieldValues");
    REQUIRE_ARGUMENT(values != NULL && count > 0);
    for (int i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "%u:%u", values[i].fieldId, values[i].scopeId);
        const Json *answer = json_get(answers, key);
        if (!json_known(answer)) {
            snprintf(key, sizeof key, "%u", values[i].fieldId);
            answer = json_get(answers, key);
        }
        values[i].nvmlReturn = json_known(answer) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
        values[i].timestamp = values[i].latencyUsec = 0;
        values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        values[i].value.ullVal = json_unsigned(answer);
    }
    return NVML_SUCCESS;
}
