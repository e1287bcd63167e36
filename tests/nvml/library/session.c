#include "fake.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int initialized; /* how often nvmlInit was called and not undone */
static struct nvmlDevice_st *handles;

static Json *description;
static struct stat described; /* the file that `description` came from, as it was then */

static char *read_file(FILE *file)
{
    size_t size = 0, room = 1 << 16;
    char *text = NULL;
    for (;;) {
        text = realloc(text, room + 1);
        if (text == NULL)
            abort();
        size_t got = fread(text + size, 1, room - size, file);
        if (got == 0)
            break;
        size += got;
        if (size == room)
            room *= 2;
    }
    text[size] = '\0';
    return text;
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Reads the description again if its file has changed. No file stands for no driver. */
static nvmlReturn_t load(void)
{
    const char *path = getenv("GPUALLOC_FAKE_NVML"), *error = NULL;
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    struct stat now;
    if (file == NULL)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (fstat(fileno(file), &now) != 0 || (description != NULL && same_file(&now, &described))) {
        fclose(file);
        return description != NULL ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
    }
    char *text = read_file(file);
    fclose(file);
    json_free(description);
    description = json_parse(text, &error);
    described = now;
    free(text);
    if (description == NULL) {
        fprintf(stderr, "fake NVML: %s: %s\n", path, error);
        return NVML_ERROR_UNKNOWN;
    }
    return NVML_SUCCESS;
}

int names_query(const char *name, const char *symbol)
{
    size_t length = strlen(name);
    if (strncmp(name, symbol, length) != 0)
        return 0;
    const char *rest = symbol + length;
    if (rest[0] == '_' && rest[1] == 'v' && isdigit((unsigned char)rest[2]))
        return rest[3] == '\0';
    return rest[0] == '\0' || (strcmp(name, "nvmlInit") == 0 && strcmp(rest, "WithFlags") == 0);
}

/* What a map keyed by queries says of this one; an exact name outranks one that stands for every version. */
static const Json *told(const Json *holder, const char *what, const char *symbol)
{
    const Json *map = json_get(holder, what), *exact = json_get(map, symbol);
    if (exact != NULL || map == NULL || map->kind != JSON_MAP)
        return exact;
    for (const Json *member = map->first; member != NULL; member = member->next)
        if (names_query(member->key, symbol))
            return member;
    return NULL;
}

nvmlReturn_t told_to_fail(const Json *holder, const char *symbol)
{
    return (nvmlReturn_t)json_unsigned(told(holder, "fail", symbol));
}

static double told_to_hang(const Json *holder, const char *symbol)
{
    return json_double(told(holder, "hang", symbol));
}

int is_lost(const Json *facts, int for_handle)
{
    const Json *lost = json_get(facts, "lost");
    return lost != NULL && (lost->kind == JSON_TRUE || (lost->kind == JSON_TEXT && !for_handle));
}

static int has_uuid(const Json *facts, const char *uuid)
{
    const Json *own = json_get(facts, "UUID");
    return own != NULL && own->kind == JSON_TEXT && strcmp(own->text, uuid) == 0;
}

int find_device(const Json *machine, const char *uuid, Device *device)
{
    const Json *gpus = json_get(machine, "gpus");
    unsigned int index = 0;
    for (const Json *gpu = gpus == NULL ? NULL : gpus->first; gpu != NULL; gpu = gpu->next, index++) {
        if (has_uuid(gpu, uuid)) {
            *device = (Device){gpu, NULL, index};
            return 1;
        }
        const Json *mig = json_get(gpu, "mig");
        unsigned int slot = 0;
        for (const Json *part = mig == NULL ? NULL : mig->first; part != NULL; part = part->next, slot++)
            if (has_uuid(part, uuid)) {
                *device = (Device){part, gpu, slot};
                return 1;
            }
    }
    return 0;
}

nvmlDevice_t handle_of(const Json *facts)
{
    const Json *uuid = json_get(facts, "UUID");
    struct nvmlDevice_st *handle;
    if (uuid == NULL || uuid->kind != JSON_TEXT || strlen(uuid->text) >= sizeof handle->uuid)
        return NULL;
    for (handle = handles; handle != NULL; handle = handle->next)
        if (strcmp(handle->uuid, uuid->text) == 0)
            return handle;
    handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        abort();
    strcpy(handle->uuid, uuid->text);
    handle->next = handles;
    handles = handle;
    return handle;
}

static nvmlReturn_t find_handle(const Json *machine, nvmlDevice_t wanted, Device *device)
{
    for (const struct nvmlDevice_st *handle = handles; handle != NULL; handle = handle->next)
        if (handle == wanted)
            return find_device(machine, handle->uuid, device) ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
    return NVML_ERROR_INVALID_ARGUMENT;
}

static void sleep_for(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0)
        continue;
}

static nvmlReturn_t look(Session *session, int on_device, nvmlDevice_t handle)
{
    nvmlReturn_t code = load();
    session->machine = description;
    if (code == NVML_SUCCESS && on_device)
        code = find_handle(description, handle, &session->device);
    return code;
}

nvmlReturn_t session_enter(Session *session, const char *symbol, int on_device, nvmlDevice_t handle)
{
    const Device *device = &session->device;
    pthread_mutex_lock(&lock);
    session->held = 1;
    if (initialized == 0 && strncmp(symbol, "nvmlInit", strlen("nvmlInit")) != 0)
        return NVML_ERROR_UNINITIALIZED;
    nvmlReturn_t code = look(session, on_device, handle);
    if (code != NVML_SUCCESS)
        return code;
    double hang = told_to_hang(session->machine, symbol), own = told_to_hang(device->facts, symbol);
    if (hang > 0 || own > 0) {
        pthread_mutex_unlock(&lock);
        sleep_for(hang > own ? hang : own);
        pthread_mutex_lock(&lock);
        code = look(session, on_device, handle);
        if (code != NVML_SUCCESS)
            return code;
    }
    code = told_to_fail(session->machine, symbol);
    if (code != NVML_SUCCESS)
        return code;
    if (is_lost(device->facts, 0) || is_lost(device->parent, 0))
        return NVML_ERROR_GPU_IS_LOST;
    return told_to_fail(device->facts, symbol);
}

nvmlReturn_t session_second(const Session *session, const char *symbol, nvmlDevice_t handle, Device *device)
{
    nvmlReturn_t code = find_handle(session->machine, handle, device);
    if (code != NVML_SUCCESS)
        return code;
    if (is_lost(device->facts, 0) || is_lost(device->parent, 0))
        return NVML_ERROR_GPU_IS_LOST;
    return told_to_fail(device->facts, symbol);
}

void session_leave(Session *session)
{
    if (session->held)
        pthread_mutex_unlock(&lock);
    session->held = 0;
}

nvmlReturn_t answer_text(const Json *answer, char *out, unsigned int length)
{
    REQUIRE_ARGUMENT(out != NULL);
    REQUIRE(answer != NULL && answer->kind == JSON_TEXT, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(strlen(answer->text) < length, NVML_ERROR_INSUFFICIENT_SIZE);
    strcpy(out, answer->text);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    SYSTEM_QUERY(session);
    initialized++;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void)
{
    SYSTEM_QUERY(session);
    initialized++;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    nvmlReturn_t code = initialized == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
    /* It works without a description too: the driver may have gone meanwhile. */
    if (code == NVML_SUCCESS && load() == NVML_SUCCESS)
        code = told_to_fail(description, __func__);
    if (code == NVML_SUCCESS)
        initialized--;
    pthread_mutex_unlock(&lock);
    return code;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        [NVML_SUCCESS] = "Success",
        [NVML_ERROR_UNINITIALIZED] = "Uninitialized",
        [NVML_ERROR_INVALID_ARGUMENT] = "Invalid Argument",
        [NVML_ERROR_NOT_SUPPORTED] = "Not Supported",
        [NVML_ERROR_NO_PERMISSION] = "Insufficient Permissions",
        [NVML_ERROR_NOT_FOUND] = "Not Found",
        [NVML_ERROR_INSUFFICIENT_SIZE] = "Insufficient Size",
        [NVML_ERROR_INSUFFICIENT_POWER] = "Insufficient External Power",
        [NVML_ERROR_DRIVER_NOT_LOADED] = "Driver Not Loaded",
        [NVML_ERROR_TIMEOUT] = "Timeout",
        [NVML_ERROR_IRQ_ISSUE] = "Interrupt Request Issue",
        [NVML_ERROR_LIBRARY_NOT_FOUND] = "NVML Shared Library Not Found",
        [NVML_ERROR_FUNCTION_NOT_FOUND] = "Function Not Found",
        [NVML_ERROR_CORRUPTED_INFOROM] = "Corrupted infoROM",
        [NVML_ERROR_GPU_IS_LOST] = "GPU is lost",
        [NVML_ERROR_RESET_REQUIRED] = "GPU requires reset",
        [NVML_ERROR_OPERATING_SYSTEM] = "GPU access blocked by the operating system",
        [NVML_ERROR_LIB_RM_VERSION_MISMATCH] = "Driver/library version mismatch",
        [NVML_ERROR_IN_USE] = "In use by another client",
        [NVML_ERROR_MEMORY] = "Insufficient Memory",
        [NVML_ERROR_NO_DATA] = "No data",
        [NVML_ERROR_INSUFFICIENT_RESOURCES] = "Insufficient Resources",
        [NVML_ERROR_ARGUMENT_VERSION_MISMATCH] = "Argument version mismatch",
        [NVML_ERROR_DEPRECATED] = "Requested functionality has been deprecated",
        [NVML_ERROR_NOT_READY] = "System is not in ready state",
        [NVML_ERROR_GPU_NOT_FOUND] = "No supported GPUs were found",
    };
    const char *text = (size_t)result < sizeof texts / sizeof *texts ? texts[result] : NULL;
    return text != NULL ? text : "Unknown Error";
}
