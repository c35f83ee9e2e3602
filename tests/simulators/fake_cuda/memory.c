/* Device memory, pinned memory, copies. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

enum { GUARD = 64, ALIGNMENT = 256, POISON = 0xA5, POISONED = 1 << 16, GUARDED = 0x5A };

static Memory *memories;
static size_t used;

static size_t total(void) { return (size_t)fake_setting("TOTAL", 1L << 30); }

/* A range that lies in one allocation; no bytes lie in any. */
Memory *fake_memory_at(const void *address, size_t nbytes, Kind kind) {
    const unsigned char *start = address;
    for (Memory *each = memories; each; each = each->next)
        if (each->kind == kind && start >= each->start
            && start + nbytes <= each->start + each->nbytes)
            return each;
    return NULL;
}

static CUresult take(Kind kind, size_t nbytes, void **address) {
    if (!nbytes) return INVALID_VALUE;
    if (kind == DEVICE_MEMORY && used + nbytes > total()) return OUT_OF_MEMORY;
    Memory *memory = calloc(1, sizeof *memory);
    size_t whole = (nbytes + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memory->start = aligned_alloc(ALIGNMENT, whole);
    if (!memory->start) {
        free(memory);
        return OUT_OF_MEMORY;
    }
    memset(memory->start, POISON, nbytes < POISONED ? nbytes : POISONED);
    memset(memory->start + nbytes, GUARDED, GUARD);
    memory->nbytes = nbytes;
    memory->kind = kind;
    memory->next = memories;
    memories = memory;
    fake_live[kind]++;
    if (kind == DEVICE_MEMORY) used += nbytes;
    *address = memory->start;
    return SUCCESS;
}

static void drop(Memory **place) {
    Memory *memory = *place;
    for (int i = 0; i < GUARD; i++)
        if (memory->start[memory->nbytes + i] != GUARDED) {
            fake_violation("something was written behind the end of an allocation");
            break;
        }
    *place = memory->next;
    if (memory->kind == DEVICE_MEMORY) used -= memory->nbytes;
    free(memory->start);
    free(memory);
}

static CUresult give_back(Kind kind, const void *address) {
    for (Memory **place = &memories; *place; place = &(*place)->next)
        if ((*place)->kind == kind && (*place)->start == address) {
            drop(place);
            fake_live[kind]--;
            return SUCCESS;
        }
    fake_violation("memory was freed that is none, or no more");
    return INVALID_VALUE;
}

void fake_forget_memory(void) {
    while (memories) drop(&memories);
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *all) {
    ENTER_CONTEXT(cuMemGetInfo_v2);
    *available = total() - used;
    *all = total();
    return fake_leave(SUCCESS);
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t nbytes) {
    ENTER_CONTEXT(cuMemAlloc_v2);
    NO_CAPTURE();
    void *address = NULL;
    CUresult result = take(DEVICE_MEMORY, nbytes, &address);
    *pointer = (CUdeviceptr)address;
    return fake_leave(result);
}

/* Waits for everything, as the real one does. */
CUresult cuMemFree_v2(CUdeviceptr pointer) {
    ENTER_CONTEXT(cuMemFree_v2);
    NO_CAPTURE();
    fake_finish_all();
    return fake_leave(give_back(DEVICE_MEMORY, (void *)pointer));
}

CUresult cuMemHostAlloc(void **address, size_t nbytes, unsigned flags) {
    (void)flags;
    ENTER_CONTEXT(cuMemHostAlloc);
    NO_CAPTURE();
    return fake_leave(take(PINNED_MEMORY, nbytes, address));
}

CUresult cuMemFreeHost(void *address) {
    ENTER_CONTEXT(cuMemFreeHost);
    NO_CAPTURE();
    fake_finish_all();
    return fake_leave(give_back(PINNED_MEMORY, address));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t nbytes, Stream *stream) {
    ENTER_CONTEXT(cuMemcpyHtoDAsync_v2);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    NEED(fake_memory_at((void *)to, nbytes, DEVICE_MEMORY), INVALID_VALUE);
    Op op = {.what = COPY, .to = (void *)to, .from = (void *)from, .nbytes = nbytes};
    /* Pageable memory is read at once, but where a graph will read it again. */
    if (!stream->capture && !fake_memory_at(from, nbytes, PINNED_MEMORY)) {
        op.staged = malloc(nbytes + 1);
        memcpy(op.staged, from, nbytes);
        op.from = op.staged;
    }
    return fake_leave(fake_ask(stream, op));
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t nbytes, Stream *stream) {
    ENTER_CONTEXT(cuMemcpyDtoHAsync_v2);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    NEED(fake_memory_at((void *)from, nbytes, DEVICE_MEMORY), INVALID_VALUE);
    Op op = {.what = COPY, .to = to, .from = (void *)from, .nbytes = nbytes};
    CUresult result = fake_ask(stream, op);
    /* Pageable memory is written before the call returns. */
    if (!result && !stream->capture && !fake_memory_at(to, nbytes, PINNED_MEMORY)) {
        fake_finish(stream);
        result = fake_context_state();
    }
    return fake_leave(result);
}
