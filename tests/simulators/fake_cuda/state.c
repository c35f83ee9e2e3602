/* Settings, faults, counts, device and context. */
#define _GNU_SOURCE
#include "fake.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FAULTS = 16, MAX_FUNCTIONS = 128, MAX_DEVICES = 4, MAX_STACK = 16 };

typedef struct { char function[64]; CUresult code; long after; } Fault;
typedef struct { const char *function; long count; } Calls;
typedef struct { long retained; CUresult error; } Context;

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
long fake_live[KINDS];
static const char *const kind_names[KINDS] = {
    "device", "pinned", "stream", "event", "graph", "graph_exec", "module", "retained", "current",
};
static Fault faults[MAX_FAULTS];
static Calls calls[MAX_FUNCTIONS];
static long violations, abandoned;
static long generation; /* how many contexts were destroyed, with all that was in them */
static char last_violation[128];
static bool is_started;
static Context contexts[MAX_DEVICES];
static __thread Context *stack[MAX_STACK];
static __thread int depth;

/* ---- settings, faults, counts ---- */

long fake_setting(const char *name, long otherwise) {
    char variable[64];
    snprintf(variable, sizeof variable, "FAKE_CUDA_%s", name);
    const char *value = getenv(variable);
    return value && *value ? strtol(value, NULL, 0) : otherwise;
}

bool fake_is_missing(const char *function) {
    const char *list = getenv("FAKE_CUDA_MISSING");
    size_t length = strlen(function);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, function, length) && (at[length] == ',' || !at[length])) return true;
    return false;
}

void fake_violation(const char *what) {
    violations++;
    snprintf(last_violation, sizeof last_violation, "%s", what);
}

CUresult fake_fault(const char *function) {
    for (int i = 0; i < MAX_FAULTS; i++)
        if (faults[i].code && !strcmp(faults[i].function, function) && !faults[i].after--) {
            CUresult code = faults[i].code;
            faults[i].code = SUCCESS;
            return code;
        }
    return SUCCESS;
}

static void count_call(const char *function) {
    for (int i = 0; i < MAX_FUNCTIONS; i++) {
        if (!calls[i].function) calls[i].function = function;
        if (strcmp(calls[i].function, function)) continue;
        calls[i].count++;
        return;
    }
}

CUresult fake_enter(const char *function) {
    pthread_mutex_lock(&fake_lock);
    count_call(function);
    if (!is_started && strcmp(function, "cuInit")) return NOT_INITIALIZED;
    return fake_fault(function);
}

CUresult fake_enter_context(const char *function) {
    CUresult entered = fake_enter(function);
    return entered ? entered : fake_context_state();
}

CUresult fake_leave(CUresult result) {
    pthread_mutex_unlock(&fake_lock);
    return result;
}

/* What tests ask, through ctypes. */

void fake_cuda_fail(const char *function, int code, long after) {
    pthread_mutex_lock(&fake_lock);
    for (int i = 0; i < MAX_FAULTS; i++)
        if (!faults[i].code) {
            snprintf(faults[i].function, sizeof faults[i].function, "%s", function);
            faults[i].code = code;
            faults[i].after = after;
            break;
        }
    pthread_mutex_unlock(&fake_lock);
}

long fake_cuda_live(const char *kind) {
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(kind_names[i], kind)) return fake_live[i];
    return -1;
}

long fake_cuda_calls(const char *function) {
    for (int i = 0; i < MAX_FUNCTIONS && calls[i].function; i++)
        if (!strcmp(calls[i].function, function)) return calls[i].count;
    return 0;
}

long fake_cuda_abandoned(void) { return abandoned; }
long fake_cuda_violations(void) { return violations; }
const char *fake_cuda_last_violation(void) { return last_violation; }

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAKE_CUDA_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i < KINDS; i++) fprintf(file, "%s %ld\n", kind_names[i], fake_live[i]);
    fprintf(file, "abandoned %ld\nviolations %ld\n", abandoned, violations);
    fclose(file);
}

/* ---- handles ---- */

void *fake_object(Kind kind, size_t nbytes) {
    Object *object = calloc(1, nbytes);
    object->kind = kind;
    object->is_live = true;
    object->context = generation;
    fake_live[kind]++;
    return object;
}

bool fake_is(const void *handle, Kind kind) {
    const Object *object = handle;
    if (object && object->kind == kind && object->is_live && object->context == generation)
        return true;
    fake_violation("a handle that is none, or no more");
    return false;
}

/* The struct stays, so that no later handle is equal to this one. */
void fake_dispose(Object *object) {
    object->is_live = false;
    fake_live[object->kind]--;
}

/* ---- driver and device ---- */

CUresult cuInit(unsigned flags) {
    (void)flags;
    CUresult fault = fake_enter("cuInit");
    if (!fault) fault = (CUresult)fake_setting("INIT", 0);
    if (!fault && fake_setting("DEVICES", 1) < 1) fault = NO_DEVICE;
    is_started = !fault;
    return fake_leave(fault);
}

/* Works before cuInit, as the real one does. */
CUresult cuDriverGetVersion(int *version) {
    *version = (int)fake_setting("VERSION", 13000);
    return SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER(cuDeviceGetCount);
    *count = (int)fake_setting("DEVICES", 1);
    return fake_leave(SUCCESS);
}

static bool is_device(CUdevice device) {
    return device >= 0 && device < fake_setting("DEVICES", 1) && device < MAX_DEVICES;
}

CUresult cuDeviceGet(CUdevice *device, int index) {
    ENTER(cuDeviceGet);
    NEED(is_device(index), INVALID_DEVICE);
    *device = index;
    return fake_leave(SUCCESS);
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    ENTER(cuDeviceGetName);
    NEED(is_device(device), INVALID_DEVICE);
    memset(name, 0, (size_t)length);
    snprintf(name, (size_t)length, "Fake GPU %d", device);
    return fake_leave(SUCCESS);
}

CUresult cuDeviceTotalMem_v2(size_t *nbytes, CUdevice device) {
    ENTER(cuDeviceTotalMem_v2);
    NEED(is_device(device), INVALID_DEVICE);
    *nbytes = (size_t)fake_setting("TOTAL", 1L << 30);
    return fake_leave(SUCCESS);
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    ENTER(cuDeviceComputeCapability);
    NEED(is_device(device), INVALID_DEVICE);
    *major = (int)fake_setting("COMPUTE", 87) / 10;
    *minor = (int)fake_setting("COMPUTE", 87) % 10;
    return fake_leave(SUCCESS);
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    enum { INTEGRATED = 18, UNIFIED_ADDRESSING = 41, MAJOR = 75, MINOR = 76 };
    ENTER(cuDeviceGetAttribute);
    NEED(is_device(device), INVALID_DEVICE);
    long compute = fake_setting("COMPUTE", 87);
    *value = attribute == MAJOR ? (int)compute / 10
        : attribute == MINOR ? (int)compute % 10
        : attribute == INTEGRATED ? (int)fake_setting("INTEGRATED", 0)
        : attribute == UNIFIED_ADDRESSING;
    return fake_leave(SUCCESS);
}

/* ---- contexts: the primary one of each device, and a stack for each thread ---- */

CUresult cuDevicePrimaryCtxRetain(void **context, CUdevice device) {
    ENTER(cuDevicePrimaryCtxRetain);
    NEED(is_device(device), INVALID_DEVICE);
    contexts[device].retained++;
    fake_live[RETAINED]++;
    *context = &contexts[device];
    return fake_leave(SUCCESS);
}

/* The last one takes everything with it that is still there. */
static void destroy(Context *context) {
    bool was_sound = !context->error;
    for (int kind = 0; kind < RETAINED; kind++) {
        if (was_sound) abandoned += fake_live[kind];
        fake_live[kind] = 0;
    }
    generation++;
    fake_streams = NULL;
    fake_forget_memory();
    context->error = SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER(cuDevicePrimaryCtxRelease_v2);
    NEED(is_device(device), INVALID_DEVICE);
    NEED(contexts[device].retained > 0, INVALID_CONTEXT);
    fake_live[RETAINED]--;
    if (!--contexts[device].retained) {
        if (!contexts[device].error) fake_finish_all();
        destroy(&contexts[device]);
    }
    return fake_leave(SUCCESS);
}

CUresult cuCtxPushCurrent_v2(void *context) {
    ENTER(cuCtxPushCurrent_v2);
    NEED(context && depth < MAX_STACK, INVALID_CONTEXT);
    stack[depth++] = context;
    fake_live[CURRENT]++;
    return fake_leave(SUCCESS);
}

CUresult cuCtxPopCurrent_v2(void **context) {
    ENTER(cuCtxPopCurrent_v2);
    NEED(depth, INVALID_CONTEXT);
    depth--;
    fake_live[CURRENT]--;
    if (context) *context = stack[depth];
    return fake_leave(SUCCESS);
}

CUresult cuCtxGetCurrent(void **context) {
    ENTER(cuCtxGetCurrent);
    *context = depth ? stack[depth - 1] : NULL;
    return fake_leave(SUCCESS);
}

CUresult cuCtxGetDevice(CUdevice *device) {
    ENTER_CONTEXT(cuCtxGetDevice);
    *device = (CUdevice)(stack[depth - 1] - contexts);
    return fake_leave(SUCCESS);
}

CUresult cuCtxSynchronize(void) {
    ENTER_CONTEXT(cuCtxSynchronize);
    NO_CAPTURE();
    fake_finish_all();
    return fake_leave(fake_context_state());
}

CUresult fake_context_state(void) {
    if (!depth) return INVALID_CONTEXT;
    if (!stack[depth - 1]->retained) return CONTEXT_IS_DESTROYED;
    return stack[depth - 1]->error;
}

/* As after a kernel that fails: nothing works until the context is destroyed. */
void fake_break_context(CUresult error) {
    for (int i = 0; i < MAX_DEVICES; i++)
        if (contexts[i].retained && !contexts[i].error) contexts[i].error = error;
}

/* ---- names of errors ---- */

static const struct { CUresult code; const char *name; } names[] = {
    {SUCCESS, "CUDA_SUCCESS"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {NOT_READY, "CUDA_ERROR_NOT_READY"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    {CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN"},
};

CUresult cuGetErrorName(CUresult error, const char **name) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == error) {
            *name = names[i].name;
            return SUCCESS;
        }
    *name = NULL;
    return INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }
