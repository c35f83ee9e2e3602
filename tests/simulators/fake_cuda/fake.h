/* A libcuda.so.1 without a GPU: its device memory is host memory. For tests only.
 *
 * Streams are lazy: what they are asked for is done when somebody waits, so that code which forgets
 * to wait, or reuses memory too early, sees it. Handles are never reused: a stale one is always
 * told. One lock guards everything; it is not held while a function of the caller runs.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uintptr_t CUdeviceptr;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    UNKNOWN = 999,
};

typedef enum {
    DEVICE_MEMORY, PINNED_MEMORY, STREAM, EVENT, GRAPH, GRAPH_EXEC, MODULE, RETAINED, CURRENT, KINDS
} Kind;

/* Begins every struct that a handle points to. */
typedef struct { Kind kind; bool is_live; long context; } Object;

typedef struct Memory {
    struct Memory *next;
    unsigned char *start;
    size_t nbytes;
    Kind kind;
} Memory;

typedef struct Op Op;
typedef struct { Op *first, **end; long references; } Work;

typedef struct Stream Stream;
typedef struct {
    Work *work;
    Stream *origin;
    pthread_t thread;
    bool is_broken;
} Capture;

struct Stream {
    Object object;
    Stream *next;
    Work work;
    Capture *capture;
    bool is_joined; /* what it added to the capture is waited for by another stream of it */
    bool is_busy;   /* a thread runs something of it */
};

typedef struct {
    Object object;
    bool has_timing;
    long asked, done; /* how often it was recorded, and how often the moment has come */
    double moment_ms;
    Stream *stream;
    Capture *capture;
} Event;

typedef struct { Object object; Work *work; } Graph;

typedef void (*Kernel)(const unsigned *grid, const unsigned *block, void **arguments);
typedef struct { Object object; void *library; } Module;
typedef struct Function {
    struct Function *next;
    Module *module;
    Kernel kernel;
    const unsigned *sizes;
    char name[64];
} Function;

struct Op {
    Op *next;
    enum { COPY, LAUNCH, CALL, RECORD, WAIT, REPLAY } what;
    void *to, *from;
    size_t nbytes;
    void *staged; /* what a copy from pageable memory reads, or a launch's arguments */
    Function *function;
    unsigned grid[3], block[3];
    void (*call)(void *);
    Event *event;
    long moment;
    Work *work;
};

/* state.c */
extern pthread_mutex_t fake_lock;
extern long fake_live[KINDS];
long fake_setting(const char *name, long otherwise);
CUresult fake_enter(const char *function); /* locks; what was asked to fail, or SUCCESS */
CUresult fake_enter_context(const char *function); /* and the context's state */
CUresult fake_leave(CUresult result);
CUresult fake_fault(const char *function);
void fake_violation(const char *what);
void *fake_object(Kind kind, size_t nbytes);
bool fake_is(const void *handle, Kind kind);
void fake_dispose(Object *object);
bool fake_is_missing(const char *function);
CUresult fake_context_state(void);
void fake_break_context(CUresult error);

/* memory.c */
Memory *fake_memory_at(const void *address, size_t nbytes, Kind kind);
void fake_forget_memory(void);

/* streams.c */
extern Stream *fake_streams;
bool fake_break_capture_of_this_thread(void);
CUresult fake_ask(Stream *stream, Op op);
void fake_finish(Stream *stream);
void fake_finish_all(void);

/* modules.c */
void fake_launch(const Op *op);

#define ENTER(function) \
    do { CUresult entered = fake_enter(#function); if (entered) return fake_leave(entered); } while (0)
#define ENTER_CONTEXT(function) \
    do { CUresult entered = fake_enter_context(#function); \
         if (entered) return fake_leave(entered); } while (0)
#define NEED(condition, error) do { if (!(condition)) return fake_leave(error); } while (0)
/* What a thread must not do while it captures: it ends the capture. */
#define NO_CAPTURE() NEED(!fake_break_capture_of_this_thread(), CAPTURE_UNSUPPORTED)

#endif
