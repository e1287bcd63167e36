/* What the queries share: the description they answer from, and the way in and out of it.
 *
 * A description is a JSON map. Every answer is keyed by its query's name without "nvmlDeviceGet" (for the system
 * queries: without "nvmlSystemGet"), so {"gpus": [{"UUID": "GPU-...", "PowerUsage": 71466}]} answers
 * nvmlDeviceGetPowerUsage. What is absent or null is NVML_ERROR_NOT_SUPPORTED.
 *
 * "fail": {"nvmlDeviceGetName": 999} makes that query fail with that code, "hang": {"nvmlDeviceGetName": 2.5} makes it
 * take so many seconds first: for every device at the top, for one in that device's map, for one link in that
 * link's map. A name without its version suffix stands for every version. (Asking for a handle is no query on a
 * device: it can be made to fail for one device, but to hang only for all.)
 * "lost": true makes the whole device answer NVML_ERROR_GPU_IS_LOST; with "queries" its handle can still be had.
 */
#ifndef FAKE_H
#define FAKE_H

#define NVML_NO_UNVERSIONED_FUNC_DEFS /* define the versions by their own names, as the real library exports them */
#pragma GCC visibility push(default)
#include <nvml.h>
#pragma GCC visibility pop

#include "json.h"

/* A handle names a device rather than point into the description, which may be replaced at any call. */
struct nvmlDevice_st {
    struct nvmlDevice_st *next;
    char uuid[96];
};

/* A device as the description has it now. `parent` is the GPU of a MIG device and NULL for a GPU. */
typedef struct {
    const Json *facts;
    const Json *parent;
    unsigned int index;
} Device;

/* The description as it is now, with the lock held from here to the caller's return. */
typedef struct {
    const Json *machine;
    Device device;
    int held;
} Session;

/* Opens the description for the query `symbol`, on `handle` where it has one: waits if it is to hang, and returns the
 * code it is to fail with. To be left by session_leave whatever it returns. */
nvmlReturn_t session_enter(Session *session, const char *symbol, int on_device, nvmlDevice_t handle);
void session_leave(Session *session);
/* The second device of a query on two; the code it makes the query fail with. */
nvmlReturn_t session_second(const Session *session, const char *symbol, nvmlDevice_t handle, Device *device);

/* Opens a query in a function that implements one: returns from it where the query is to fail. */
#define QUERY(session, handle)                                                                  \
    Session session __attribute__((cleanup(session_leave))) = {0};                              \
    do {                                                                                        \
        nvmlReturn_t code = session_enter(&session, __func__, 1, handle);                       \
        if (code != NVML_SUCCESS)                                                               \
            return code;                                                                        \
    } while (0)
#define SYSTEM_QUERY(session)                                                                   \
    Session session __attribute__((cleanup(session_leave))) = {0};                              \
    do {                                                                                        \
        nvmlReturn_t code = session_enter(&session, __func__, 0, NULL);                         \
        if (code != NVML_SUCCESS)                                                               \
            return code;                                                                        \
    } while (0)
#define REQUIRE(condition, code)                                                                \
    do {                                                                                        \
        if (!(condition))                                                                       \
            return (code);                                                                      \
    } while (0)
#define REQUIRE_ARGUMENT(condition) REQUIRE(condition, NVML_ERROR_INVALID_ARGUMENT)

/* The code that `holder` (a device, a link, a pair) says the query is to fail with. */
nvmlReturn_t told_to_fail(const Json *holder, const char *symbol);
/* Whether `symbol` is the query `name`, in whatever version. */
int names_query(const char *name, const char *symbol);

/* Whether a GPU is lost: to its queries, or even to whoever wants its handle. */
int is_lost(const Json *facts, int for_handle);

/* The one handle of a device, and the device of a handle as the description has it now. */
nvmlDevice_t handle_of(const Json *facts);
int find_device(const Json *machine, const char *uuid, Device *device);

/* Copies a text answer out, as every text query does. */
nvmlReturn_t answer_text(const Json *answer, char *out, unsigned int length);
/* Fills in PCI information from an answer {"busId": ..., "pciDeviceId": ..., "pciSubSystemId": ...}. */
nvmlReturn_t answer_pci(const Json *answer, nvmlPciInfo_t *out);

#endif
