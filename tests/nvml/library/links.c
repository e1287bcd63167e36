/* How devices are joined: NVLink, the NVSwitch fabric, PCIe. */
#include "fake.h"

#include <string.h>

/* "nvlinks": [{"active": true, "version": 6, "remote": {"type": 2, "busId": "FFFFFFFF:FF:FF.0"},
 * "capabilities": [0, 2, 5]}]. A device without the list has no NVLink: not supported. A link past its end is an
 * invalid argument; an inactive one answers its state and its version only. */
static nvmlReturn_t find_link(const Session *session, const char *symbol, unsigned int number, const Json **link)
{
    const Json *links = json_get(session->device.facts, "nvlinks");
    REQUIRE(json_known(links), NVML_ERROR_NOT_SUPPORTED);
    *link = json_at(links, number);
    REQUIRE_ARGUMENT(*link != NULL);
    return told_to_fail(*link, symbol);
}

#define LINK_QUERY(session, device, number, link, out)                                          \
    QUERY(session, device);                                                                     \
    const Json *link = NULL;                                                                    \
    REQUIRE_ARGUMENT((out) != NULL);                                                            \
    do {                                                                                        \
        nvmlReturn_t code = find_link(&session, __func__, number, &link);                       \
        REQUIRE(code == NVML_SUCCESS, code);                                                    \
    } while (0)

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int number, nvmlEnableState_t *out)
{
    LINK_QUERY(session, device, number, link, out);
    *out = json_unsigned(json_get(link, "active")) ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int number, unsigned int *out)
{
    LINK_QUERY(session, device, number, link, out);
    REQUIRE(json_known(json_get(link, "version")), NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned int)json_unsigned(json_get(link, "version"));
    return NVML_SUCCESS;
}

/* The other end of an active link. */
static const Json *remote_of(const Json *link)
{
    return json_unsigned(json_get(link, "active")) ? json_get(link, "remote") : NULL;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int number, nvmlPciInfo_t *out)
{
    LINK_QUERY(session, device, number, link, out);
    return answer_pci(remote_of(link), out);
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int number,
                                                 nvmlIntNvLinkDeviceType_t *out)
{
    LINK_QUERY(session, device, number, link, out);
    const Json *type = json_get(remote_of(link), "type");
    REQUIRE(json_known(type), NVML_ERROR_NOT_SUPPORTED);
    *out = (nvmlIntNvLinkDeviceType_t)json_unsigned(type);
    return NVML_SUCCESS;
}

/* "capabilities" lists those that the link has, by number. */
nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int number, nvmlNvLinkCapability_t capability,
                                           unsigned int *out)
{
    LINK_QUERY(session, device, number, link, out);
    const Json *list = json_get(link, "capabilities");
    REQUIRE_ARGUMENT(capability < NVML_NVLINK_CAP_COUNT);
    REQUIRE(json_known(list), NVML_ERROR_NOT_SUPPORTED);
    *out = 0;
    for (const Json *has = list->first; has != NULL; has = has->next)
        if (json_unsigned(has) == (unsigned long long)capability)
            *out = 1;
    return NVML_SUCCESS;
}

/* {"TopologyCommonAncestor": {"GPU-other": 30}} on either of the two; {"fail": ...} in place of a level fails for
 * this pair alone. Of a GPU and itself it is not supported, as with the real driver (580.159.04). */
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device1, nvmlDevice_t device2,
                                                 nvmlGpuTopologyLevel_t *level)
{
    QUERY(session, device1);
    Device other;
    const Json *answer = NULL, *uuid = json_get(session.device.facts, "UUID");
    REQUIRE_ARGUMENT(level != NULL);
    nvmlReturn_t code = session_second(&session, __func__, device2, &other);
    REQUIRE(code == NVML_SUCCESS, code);
    answer = json_get(json_get(session.device.facts, "TopologyCommonAncestor"), json_get(other.facts, "UUID")->text);
    if (!json_known(answer))
        answer = json_get(json_get(other.facts, "TopologyCommonAncestor"), uuid->text);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    code = told_to_fail(answer, __func__);
    REQUIRE(code == NVML_SUCCESS, code);
    *level = (nvmlGpuTopologyLevel_t)json_unsigned(answer);
    return NVML_SUCCESS;
}

/* {"GpuFabricInfo": {"state": 3, "status": 0, "cliqueId": 1, "healthMask": 0, "healthSummary": 1}} */
nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "GpuFabricInfo");
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    memset(out, 0, sizeof *out);
    out->state = (nvmlGpuFabricState_t)json_unsigned(json_get(answer, "state"));
    out->status = (nvmlReturn_t)json_unsigned(json_get(answer, "status"));
    out->cliqueId = (unsigned int)json_unsigned(json_get(answer, "cliqueId"));
    return NVML_SUCCESS;
}

/* Version 3 is version 2 with one field more. */
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *out)
{
    QUERY(session, device);
    const Json *answer = json_get(session.device.facts, "GpuFabricInfo");
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(out->version == nvmlGpuFabricInfo_v2 || out->version == nvmlGpuFabricInfo_v3,
            NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    REQUIRE(json_known(answer), NVML_ERROR_NOT_SUPPORTED);
    memset(out->clusterUuid, 0, sizeof out->clusterUuid);
    out->state = (nvmlGpuFabricState_t)json_unsigned(json_get(answer, "state"));
    out->status = (nvmlReturn_t)json_unsigned(json_get(answer, "status"));
    out->cliqueId = (unsigned int)json_unsigned(json_get(answer, "cliqueId"));
    out->healthMask = (unsigned int)json_unsigned(json_get(answer, "healthMask"));
    if (out->version == nvmlGpuFabricInfo_v3)
        out->healthSummary = (unsigned char)json_unsigned(json_get(answer, "healthSummary"));
    return NVML_SUCCESS;
}
