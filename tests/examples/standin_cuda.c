/* The few functions of CUDA's driver API (cuda.h) that the Airflow example's probe calls, for hosts without a GPU.
 *
 * STANDIN_CUDA lists the devices in the "container": thirty-two hexadecimal digits each, separated by commas.
 * CUDA_VISIBLE_DEVICES is honoured as CUDA honours ordinals: entries count up to the first invalid one, and a device
 * named twice leaves none.
 */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#define MOST 16

static char uuid[MOST][33];
static int shown[MOST], count;

static int read_environment(void) {
    int present = 0;
    const char *list = getenv("STANDIN_CUDA"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    for (; list && *list && present < MOST; list += strcspn(list, ","), list += *list == ',')
        present += sscanf(list, "%32[0-9a-f]", uuid[present]) == 1;
    count = 0;
    if (!visible) {
        while (count < present) { shown[count] = count; count++; }
        return count;
    }
    while (*visible) {
        char *end;
        long ordinal = strtol(visible, &end, 10);
        if (end == visible || ordinal < 0 || ordinal >= present) break;
        for (int i = 0; i < count; i++)
            if (shown[i] == ordinal) return count = 0;
        shown[count++] = (int)ordinal;
        visible = *end == ',' ? end + 1 : end;
    }
    return count;
}

int cuInit(unsigned flags) { (void)flags; return read_environment() ? 0 : 100; }

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

int cuDeviceGetName(char *name, int size, int handle) { snprintf(name, size, "Stand-in %d", handle); return 0; }

int cuDeviceTotalMem_v2(size_t *bytes, int handle) { (void)handle; *bytes = (size_t)24 << 30; return 0; }

int cuDeviceGetUuid_v2(unsigned char *bytes, int handle) {
    for (int i = 0; i < 16; i++) sscanf(uuid[handle] + 2 * i, "%2hhx", bytes + i);
    return 0;
}
