/* A stand-in for NVML with two devices, for tests. It has the functions that the agent calls.
 *
 * The second device has no power reading, no ECC and no NVLink (3 is NVML_ERROR_NOT_SUPPORTED). The utilisation rises with each
 * call. After two samples the first device reports the error XID 79: it has fallen off the bus. */
#include <stdio.h>
#include <string.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, TIMEOUT = 10 };
enum { TX = 138, RX = 139, UNSIGNED_LONG_LONG = 3, XID_EVENT = 8, LOST = 79 };

typedef struct { unsigned gpu, memory; } rates;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned id, scope; long long at, took; unsigned type; int result; unsigned long long value; } field;
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } event;

static long number(void *device) { return (long)device; }
static unsigned samples;
static int told;

int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return i < 2 ? OK : INVALID; }
int nvmlDeviceGetIndex(void *d, unsigned *i) { *i = number(d) - 1; return OK; }
int nvmlDeviceGetName(void *d, char *name, unsigned n) { snprintf(name, n, "Test %ld", number(d)); return OK; }
int nvmlDeviceGetUUID(void *d, char *id, unsigned n) { snprintf(id, n, "GPU-%ld0-x", number(d)); return OK; }
int nvmlDeviceGetMemoryInfo_v2(void *d, memory *m) { m->total = 1000 * number(d); m->used = 10; return OK; }
int nvmlDeviceGetUtilizationRates(void *d, rates *r) { r->gpu = 50 + 5 * samples; samples += 1; return OK; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { *mw = 120500; return number(d) == 1 ? OK : UNSUPPORTED; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *c) { *c = 60 + number(d); return OK; }
/* 1 is the clock of the multiprocessors, 2 that of the memory. */
int nvmlDeviceGetClockInfo(void *d, int which, unsigned *mhz) { *mhz = which == 1 ? 1980 : 2619; return OK; }
/* Bit 2 is the power limit, bit 5 the temperature. */
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *r) { *r = 0x24; return OK; }
int nvmlDeviceGetTotalEccErrors(void *d, int kind, int counter, unsigned long long *n) {
    *n = kind == 1 && counter == 0 ? 7 : 0; /* uncorrected, since the driver was loaded */
    return number(d) == 1 ? OK : UNSUPPORTED;
}
int nvmlDeviceGetFieldValues(void *d, int n, field *f) {
    for (int i = 0; i < n; i++) {
        int known = (f[i].id == TX || f[i].id == RX) && f[i].scope == (unsigned)-1;
        f[i].result = known && number(d) == 1 ? OK : UNSUPPORTED;
        f[i].type = UNSIGNED_LONG_LONG;
        f[i].value = f[i].id == TX ? 3 : 4;
    }
    return OK;
}
int nvmlEventSetCreate(void **set) { *set = &samples; return OK; }
int nvmlEventSetFree(void *set) { return OK; }
int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void *set) { return types == XID_EVENT ? OK : INVALID; }
int nvmlEventSetWait_v2(void *set, event *e, unsigned timeout_ms) {
    if (told || samples < 4) return TIMEOUT;
    told = 1;
    memset(e, 0, sizeof *e);
    e->device = (void *)1;
    e->type = XID_EVENT;
    e->data = LOST;
    return OK;
}
