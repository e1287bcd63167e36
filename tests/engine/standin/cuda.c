/* Stands in for CUDA's driver in a container: the few functions of cuda.h that tell one device from another.
 *
 * The devices of the container are the files of STANDIN_GPUS (/run/standin/gpus if absent), in the order of their names,
 * each with a UUID on its first line. CUDA_VISIBLE_DEVICES is read as CUDA reads it: entries count up to the first that
 * is not valid, or is of another kind than the first; a device named twice leaves none; only one MIG instance is shown.
 */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

static char uuid[MOST][64];
static int shown[MOST], count;

static int read_devices(void) {
    const char *folder = getenv("STANDIN_GPUS");
    char pattern[4096];
    glob_t found;
    int present = 0;
    snprintf(pattern, sizeof pattern, "%s/*", folder ? folder : "/run/standin/gpus");
    if (glob(pattern, 0, NULL, &found)) return 0;
    for (size_t i = 0; i < found.gl_pathc && present < MOST; i++) {
        FILE *file = fopen(found.gl_pathv[i], "r");
        if (file && fscanf(file, "%63s", uuid[present]) == 1) present++;
        if (file) fclose(file);
    }
    globfree(&found);
    return present;
}

static int by_uuid(const char *entry, int present) {
    int match = -1;
    if (strncmp(entry, "GPU-", 4) && strncmp(entry, "MIG-", 4)) return -1;
    for (int i = 0; i < present; i++)
        if (!strncmp(uuid[i], entry, strlen(entry))) {
            if (match >= 0) return -1;
            match = i;
        }
    return match;
}

static int by_number(const char *entry, int present) {
    char *end;
    long number = strtol(entry, &end, 10);
    return *end || number < 0 || number >= present ? -1 : (int)number;
}

static void show(int present) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    char text[4096], *rest = text, *entry;
    int numbers = -1;
    count = 0;
    if (!visible) {
        while (count < present) { shown[count] = count; count++; }
        return;
    }
    snprintf(text, sizeof text, "%s", visible);
    while ((entry = strsep(&rest, ","))) {
        while (*entry == ' ') entry++;
        int is_number = *entry >= '0' && *entry <= '9';
        if (numbers >= 0 && is_number != numbers) break;
        numbers = is_number;
        int device = is_number ? by_number(entry, present) : by_uuid(entry, present);
        if (device < 0) break;
        for (int i = 0; i < count; i++)
            if (shown[i] == device) { count = 0; return; }
        shown[count++] = device;
    }
}

int cuInit(unsigned flags) {
    (void)flags;
    if (getenv("STANDIN_CUDA_CRASHES")) abort();
    if (getenv("STANDIN_CUDA_HANGS")) for (;;) ;
    show(read_devices());
    if (count > 1 && !strncmp(uuid[shown[0]], "MIG-", 4)) count = 1;
    return count ? 0 : 100;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_INVALID_DEVICE";
    return 0;
}

int cuDeviceGetCount(int *number) { *number = count; return 0; }

int cuDeviceGet(int *handle, int ordinal) {
    if (ordinal < 0 || ordinal >= count) return 101;
    *handle = shown[ordinal];
    return 0;
}

int cuDeviceGetUuid_v2(unsigned char *bytes, int handle) {
    const char *digits = uuid[handle] + 4;
    for (int i = 0; i < 16 && *digits; i++) {
        if (*digits == '-') digits++;
        sscanf(digits, "%2hhx", bytes + i);
        digits += 2;
    }
    return 0;
}
