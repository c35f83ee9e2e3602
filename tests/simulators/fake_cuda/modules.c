/* Modules and kernels, and the addresses of all functions.
 *
 * A module's image is an ELF shared object. A kernel NAME in it is
 * `void NAME(const unsigned *grid, const unsigned *block, void **arguments)`, and
 * `const unsigned NAME_sizes[]` lists the bytes of each argument, ended by 0.
 */
#define _GNU_SOURCE
#include "fake.h"

#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 64, MAX_BLOCK = 1024 };
enum { ERROR_LOG = 5 }; /* CU_JIT_ERROR_LOG_BUFFER */

static Function *functions;

static void *opened(const unsigned char *image, size_t nbytes) {
    char path[] = "/tmp/fake-cuda-XXXXXX"; /* the loader knows libraries by name: a new one each */
    int file = mkstemp(path);
    if (file < 0) return NULL;
    void *library = NULL;
    if (write(file, image, nbytes) == (ssize_t)nbytes) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    close(file);
    return library;
}

static CUresult load(Module **made, const void *image) {
    if (memcmp(image, ELFMAG, SELFMAG)) return memcmp(image, "//", 2) ? INVALID_IMAGE : INVALID_PTX;
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_DYN) return NO_BINARY_FOR_GPU;
    /* The image has no length of its own; its table of sections comes last. */
    void *library = opened(image, header.e_shoff + (size_t)header.e_shnum * header.e_shentsize);
    if (!library) return NO_BINARY_FOR_GPU;
    *made = fake_object(MODULE, sizeof **made);
    (*made)->library = library;
    return SUCCESS;
}

/* A driver that fails before it compiles writes no log: the caller's memory is as it was. */
static void leave_log_as_it_may_be(unsigned options, const int *which, void **values) {
    static const char rubbish[] = "o\x01v\x84\xff";
    for (unsigned i = 0; i < options; i++)
        if (which[i] == ERROR_LOG) memcpy(values[i], rubbish, sizeof rubbish);
}

CUresult cuModuleLoadData(Module **made, const void *image) {
    ENTER_CONTEXT(cuModuleLoadData);
    NO_CAPTURE();
    return fake_leave(load(made, image));
}

CUresult cuModuleLoadDataEx(
    Module **made, const void *image, unsigned options, const int *which, void **values
) {
    leave_log_as_it_may_be(options, which, values);
    ENTER_CONTEXT(cuModuleLoadDataEx);
    NO_CAPTURE();
    return fake_leave(load(made, image));
}

CUresult cuModuleUnload(Module *module) {
    ENTER_CONTEXT(cuModuleUnload);
    NEED(fake_is(module, MODULE), INVALID_HANDLE);
    fake_finish_all();
    fake_dispose(&module->object);
    dlclose(module->library);
    return fake_leave(SUCCESS);
}

CUresult cuModuleGetFunction(Function **found, Module *module, const char *name) {
    ENTER_CONTEXT(cuModuleGetFunction);
    NEED(fake_is(module, MODULE), INVALID_HANDLE);
    for (Function *each = functions; each; each = each->next)
        if (each->module == module && !strcmp(each->name, name)) {
            *found = each;
            return fake_leave(SUCCESS);
        }
    char sizes[80];
    snprintf(sizes, sizeof sizes, "%.63s_sizes", name);
    Function made = {
        .next = functions,
        .module = module,
        .kernel = (Kernel)dlsym(module->library, name),
        .sizes = dlsym(module->library, sizes),
    };
    NEED(made.kernel && made.sizes, NOT_FOUND);
    snprintf(made.name, sizeof made.name, "%s", name);
    functions = malloc(sizeof made);
    *functions = made;
    *found = functions;
    return fake_leave(SUCCESS);
}

/* Deprecated and without effect, but pycuda calls it before each launch. */
CUresult cuFuncSetBlockShape(Function *function, int x, int y, int z) {
    (void)function, (void)x, (void)y, (void)z;
    ENTER_CONTEXT(cuFuncSetBlockShape);
    return fake_leave(SUCCESS);
}

/* ---- launches ---- */

/* The arguments one after the other, each 16 bytes aligned; NULL where too few were given. */
static unsigned char *gathered(const unsigned *sizes, void **pointers, void **extra) {
    const unsigned char *packed = NULL;
    size_t left = 0, at = 0, whole = 1;
    for (int i = 0; extra && extra[i]; i += 2) { /* ended by CU_LAUNCH_PARAM_END, which is 0 */
        if ((uintptr_t)extra[i] == 1) packed = extra[i + 1];
        if ((uintptr_t)extra[i] == 2) left = *(size_t *)extra[i + 1];
    }
    for (int i = 0; sizes[i]; i++) whole += (sizes[i] + 15) / 16 * 16;
    unsigned char *values = calloc(1, whole), *to = values;
    for (int i = 0; sizes[i]; i++) {
        at = (at + sizes[i] - 1) / sizes[i] * sizes[i]; /* a scalar is aligned as it is long */
        if (pointers ? !pointers[i] : !packed || at + sizes[i] > left) {
            free(values);
            return NULL;
        }
        memcpy(to, pointers ? pointers[i] : packed + at, sizes[i]);
        at += sizes[i];
        to += (sizes[i] + 15) / 16 * 16;
    }
    return values;
}

CUresult cuLaunchKernel(
    Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, Stream *stream, void **pointers, void **extra
) {
    (void)shared;
    ENTER_CONTEXT(cuLaunchKernel);
    NEED(function && fake_is(function->module, MODULE) && fake_is(stream, STREAM), INVALID_HANDLE);
    NEED(gx && gy && gz && bx && by && bz, INVALID_VALUE);
    NEED((uint64_t)bx * by * bz <= MAX_BLOCK, INVALID_VALUE);
    Op op = {
        .what = LAUNCH,
        .function = function,
        .staged = gathered(function->sizes, pointers, extra),
        .grid = {gx, gy, gz},
        .block = {bx, by, bz},
    };
    NEED(op.staged, INVALID_VALUE);
    CUresult result = fake_ask(stream, op);
    if (result) free(op.staged);
    return fake_leave(result);
}

void fake_launch(const Op *op) {
    void *arguments[MAX_ARGUMENTS];
    unsigned char *at = op->staged;
    for (int i = 0; i < MAX_ARGUMENTS && op->function->sizes[i]; i++) {
        arguments[i] = at;
        at += (op->function->sizes[i] + 15) / 16 * 16;
    }
    op->function->kernel(op->grid, op->block, arguments);
}

/* ---- addresses of functions ---- */

/* Every name with the version since which its symbol serves: one with another signature is older
 * and is not here, or is newer and stands below. */
static const struct { const char *name; int since; const char *symbol; } entries[] = {
    {"cuCtxGetCurrent", 4000, "cuCtxGetCurrent"},
    {"cuCtxGetDevice", 2000, "cuCtxGetDevice"},
    {"cuCtxPopCurrent", 4000, "cuCtxPopCurrent_v2"},
    {"cuCtxPushCurrent", 4000, "cuCtxPushCurrent_v2"},
    {"cuCtxSynchronize", 2000, "cuCtxSynchronize"},
    {"cuDeviceComputeCapability", 2000, "cuDeviceComputeCapability"},
    {"cuDeviceGet", 2000, "cuDeviceGet"},
    {"cuDeviceGetAttribute", 2000, "cuDeviceGetAttribute"},
    {"cuDeviceGetCount", 2000, "cuDeviceGetCount"},
    {"cuDeviceGetName", 2000, "cuDeviceGetName"},
    {"cuDevicePrimaryCtxRelease", 11000, "cuDevicePrimaryCtxRelease_v2"},
    {"cuDevicePrimaryCtxRetain", 7000, "cuDevicePrimaryCtxRetain"},
    {"cuDeviceTotalMem", 3020, "cuDeviceTotalMem_v2"},
    {"cuDriverGetVersion", 2020, "cuDriverGetVersion"},
    {"cuEventCreate", 2000, "cuEventCreate"},
    {"cuEventDestroy", 4000, "cuEventDestroy_v2"},
    {"cuEventElapsedTime", 2000, "cuEventElapsedTime"},
    {"cuEventElapsedTime", 12080, "cuEventElapsedTime_v2"},
    {"cuEventQuery", 2000, "cuEventQuery"},
    {"cuEventRecord", 2000, "cuEventRecord"},
    {"cuEventSynchronize", 2000, "cuEventSynchronize"},
    {"cuGetErrorName", 6000, "cuGetErrorName"},
    {"cuGetErrorString", 6000, "cuGetErrorString"},
    {"cuGetProcAddress", 12000, "cuGetProcAddress_v2"},
    {"cuGraphDestroy", 10000, "cuGraphDestroy"},
    {"cuGraphExecDestroy", 10000, "cuGraphExecDestroy"},
    {"cuGraphInstantiateWithFlags", 11040, "cuGraphInstantiateWithFlags"},
    {"cuGraphLaunch", 10000, "cuGraphLaunch"},
    {"cuInit", 2000, "cuInit"},
    {"cuLaunchHostFunc", 10000, "cuLaunchHostFunc"},
    {"cuLaunchKernel", 4000, "cuLaunchKernel"},
    {"cuMemAlloc", 3020, "cuMemAlloc_v2"},
    {"cuMemFree", 3020, "cuMemFree_v2"},
    {"cuMemFreeHost", 2000, "cuMemFreeHost"},
    {"cuMemGetInfo", 3020, "cuMemGetInfo_v2"},
    {"cuMemHostAlloc", 2020, "cuMemHostAlloc"},
    {"cuMemcpyDtoHAsync", 3020, "cuMemcpyDtoHAsync_v2"},
    {"cuMemcpyHtoDAsync", 3020, "cuMemcpyHtoDAsync_v2"},
    {"cuModuleGetFunction", 2000, "cuModuleGetFunction"},
    {"cuModuleLoadData", 2000, "cuModuleLoadData"},
    {"cuModuleUnload", 2000, "cuModuleUnload"},
    {"cuStreamBeginCapture", 10010, "cuStreamBeginCapture_v2"},
    {"cuStreamCreate", 2000, "cuStreamCreate"},
    {"cuStreamDestroy", 4000, "cuStreamDestroy_v2"},
    {"cuStreamEndCapture", 10000, "cuStreamEndCapture"},
    {"cuStreamSynchronize", 2000, "cuStreamSynchronize"},
    {"cuStreamWaitEvent", 3020, "cuStreamWaitEvent"},
};

static void *of_this_library(const char *symbol) {
    Dl_info place;
    dladdr((void *)of_this_library, &place);
    void *library = dlopen(place.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    void *address = library ? dlsym(library, symbol) : NULL;
    if (library) dlclose(library);
    return address;
}

CUresult cuGetProcAddress_v2(
    const char *name, void **found, int version, uint64_t flags, int *status
) {
    enum { FOUND = 0, SYMBOL_NOT_FOUND = 1, VERSION_NOT_SUFFICIENT = 2 };
    (void)flags;
    int answer = SYMBOL_NOT_FOUND, since = 0;
    long of_driver = fake_setting("VERSION", 13000);
    *found = NULL;
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        if (strcmp(entries[i].name, name) || fake_is_missing(name)) continue;
        if (entries[i].since > of_driver) continue;
        if (entries[i].since > version) {
            if (answer != FOUND) answer = VERSION_NOT_SUFFICIENT;
        } else if (entries[i].since > since) {
            *found = of_this_library(entries[i].symbol);
            since = entries[i].since;
            answer = FOUND;
        }
    }
    if (status) *status = answer;
    return answer == FOUND ? SUCCESS : NOT_FOUND;
}
