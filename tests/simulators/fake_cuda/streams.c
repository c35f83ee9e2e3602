/* Streams, events, capture, graphs. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

Stream *fake_streams;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;

/* ---- work: a list of things to do ---- */

static void append(Work *work, Op op) {
    Op *made = malloc(sizeof *made);
    *made = op;
    made->next = NULL;
    if (!work->end) work->end = &work->first;
    *work->end = made;
    work->end = &made->next;
}

static void release(Work *work) {
    if (--work->references > 0) return;
    for (Op *op = work->first, *next; op; op = next) {
        next = op->next;
        free(op->staged);
        if (op->what == REPLAY) release(op->work);
        free(op);
    }
    free(work);
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static bool is_ready(const Op *op) { return op->what != WAIT || op->event->done >= op->moment; }

static void copy(const Op *op) {
    if (fake_memory_at(op->to, op->nbytes, DEVICE_MEMORY)
        || fake_memory_at(op->from, op->nbytes, DEVICE_MEMORY)) {
        memmove(op->to, op->from, op->nbytes);
        return;
    }
    fake_violation("a copy was done after its memory was freed");
    fake_break_context(ILLEGAL_ADDRESS);
}

static void run(const Op *op) {
    CUresult fault = op->what == LAUNCH ? fake_fault("kernel") : SUCCESS;
    if (fault) {
        fake_break_context(fault);
        return;
    }
    switch (op->what) {
    case COPY:
        copy(op);
        break;
    case LAUNCH:
        fake_launch(op);
        break;
    case CALL:
        pthread_mutex_unlock(&fake_lock);
        op->call(op->to);
        pthread_mutex_lock(&fake_lock);
        break;
    case RECORD:
        op->event->done = op->moment;
        op->event->moment_ms = now_ms();
        break;
    case REPLAY:
        for (const Op *each = op->work->first; each; each = each->next) run(each);
        break;
    case WAIT:
        break;
    }
}

static void finish_until(Stream *stream, const Event *event, long moment);

static void step(Stream *stream) {
    while (stream->is_busy) pthread_cond_wait(&idle, &fake_lock);
    Op *op = stream->work.first;
    if (!op) return;
    stream->is_busy = true;
    if (!is_ready(op)) finish_until(op->event->stream, op->event, op->moment);
    stream->work.first = op->next;
    if (!op->next) stream->work.end = &stream->work.first;
    run(op);
    free(op->staged);
    if (op->what == REPLAY) release(op->work);
    free(op);
    stream->is_busy = false;
    pthread_cond_broadcast(&idle);
}

static void finish_until(Stream *stream, const Event *event, long moment) {
    while (event->done < moment && (stream->work.first || stream->is_busy)) step(stream);
}

void fake_finish(Stream *stream) {
    while (stream->work.first || stream->is_busy) step(stream);
}

/* Not what another thread is in the midst of: it may want Python's lock, which the caller holds. */
void fake_finish_all(void) {
    for (Stream *stream = fake_streams; stream; stream = stream->next)
        while (stream->work.first && !stream->is_busy) step(stream);
}

/* Adds to what the stream does, or to what it captures. */
CUresult fake_ask(Stream *stream, Op op) {
    if (!stream->capture) {
        append(&stream->work, op);
        return SUCCESS;
    }
    if (stream->capture->is_broken) return CAPTURE_INVALIDATED;
    stream->is_joined = stream == stream->capture->origin;
    append(stream->capture->work, op);
    return SUCCESS;
}

/* ---- streams ---- */

CUresult cuStreamCreate(Stream **made, unsigned flags) {
    (void)flags;
    ENTER_CONTEXT(cuStreamCreate);
    Stream *stream = fake_object(STREAM, sizeof *stream);
    stream->next = fake_streams;
    fake_streams = stream;
    *made = stream;
    return fake_leave(SUCCESS);
}

CUresult cuStreamDestroy_v2(Stream *stream) {
    ENTER_CONTEXT(cuStreamDestroy_v2);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    fake_finish(stream);
    for (Stream **place = &fake_streams; *place; place = &(*place)->next)
        if (*place == stream) {
            *place = stream->next;
            break;
        }
    fake_dispose(&stream->object);
    return fake_leave(SUCCESS);
}

CUresult cuStreamSynchronize(Stream *stream) {
    ENTER_CONTEXT(cuStreamSynchronize);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    if (stream->capture) {
        stream->capture->is_broken = true;
        return fake_leave(CAPTURE_UNSUPPORTED);
    }
    fake_finish(stream);
    return fake_leave(fake_context_state());
}

CUresult cuLaunchHostFunc(Stream *stream, void (*call)(void *), void *data) {
    ENTER_CONTEXT(cuLaunchHostFunc);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    return fake_leave(fake_ask(stream, (Op){.what = CALL, .call = call, .to = data}));
}

/* ---- events ---- */

CUresult cuEventCreate(Event **made, unsigned flags) {
    enum { DISABLE_TIMING = 2 };
    ENTER_CONTEXT(cuEventCreate);
    Event *event = fake_object(EVENT, sizeof *event);
    event->has_timing = !(flags & DISABLE_TIMING);
    *made = event;
    return fake_leave(SUCCESS);
}

CUresult cuEventDestroy_v2(Event *event) {
    ENTER_CONTEXT(cuEventDestroy_v2);
    NEED(fake_is(event, EVENT), INVALID_HANDLE);
    fake_dispose(&event->object);
    return fake_leave(SUCCESS);
}

CUresult cuEventRecord(Event *event, Stream *stream) {
    ENTER_CONTEXT(cuEventRecord);
    NEED(fake_is(event, EVENT) && fake_is(stream, STREAM), INVALID_HANDLE);
    event->capture = stream->capture;
    event->stream = stream;
    if (stream->capture) return fake_leave(stream->capture->is_broken ? CAPTURE_INVALIDATED : SUCCESS);
    event->asked++;
    Op op = {.what = RECORD, .event = event, .moment = event->asked};
    return fake_leave(fake_ask(stream, op));
}

CUresult cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    (void)flags;
    ENTER_CONTEXT(cuStreamWaitEvent);
    NEED(fake_is(event, EVENT) && fake_is(stream, STREAM), INVALID_HANDLE);
    if (event->capture) { /* the stream takes part in that capture from now on */
        NEED(!stream->capture || stream->capture == event->capture, CAPTURE_ISOLATION);
        if (!stream->capture) stream->is_joined = false;
        stream->capture = event->capture;
        if (event->stream != stream) event->stream->is_joined = true;
        return fake_leave(SUCCESS);
    }
    if (!event->asked) return fake_leave(SUCCESS);
    if (stream->capture) {
        stream->capture->is_broken = true;
        return fake_leave(CAPTURE_ISOLATION);
    }
    Op op = {.what = WAIT, .event = event, .moment = event->asked};
    return fake_leave(fake_ask(stream, op));
}

/* Time passes while one asks: the next thing of its stream is done after the answer. */
CUresult cuEventQuery(Event *event) {
    ENTER_CONTEXT(cuEventQuery);
    NEED(fake_is(event, EVENT), INVALID_HANDLE);
    NEED(!event->capture, CAPTURED_EVENT);
    bool is_done = event->done >= event->asked;
    if (!is_done) step(event->stream);
    return fake_leave(is_done ? SUCCESS : NOT_READY);
}

CUresult cuEventSynchronize(Event *event) {
    ENTER_CONTEXT(cuEventSynchronize);
    NEED(fake_is(event, EVENT), INVALID_HANDLE);
    NEED(!event->capture, CAPTURED_EVENT);
    if (event->asked) finish_until(event->stream, event, event->asked);
    return fake_leave(fake_context_state());
}

CUresult cuEventElapsedTime_v2(float *elapsed_ms, Event *first, Event *second) {
    ENTER_CONTEXT(cuEventElapsedTime_v2);
    NEED(fake_is(first, EVENT) && fake_is(second, EVENT), INVALID_HANDLE);
    NEED(first->has_timing && second->has_timing && first->asked && second->asked, INVALID_HANDLE);
    NEED(first->done >= first->asked && second->done >= second->asked, NOT_READY);
    *elapsed_ms = (float)(second->moment_ms - first->moment_ms);
    return fake_leave(SUCCESS);
}

CUresult cuEventElapsedTime(float *elapsed_ms, Event *first, Event *second) {
    return cuEventElapsedTime_v2(elapsed_ms, first, second);
}

/* ---- capture and graphs ---- */

CUresult cuStreamBeginCapture_v2(Stream *stream, int mode) {
    enum { THREAD_LOCAL = 1 };
    ENTER_CONTEXT(cuStreamBeginCapture_v2);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    NEED(mode == THREAD_LOCAL, NOT_SUPPORTED);
    NEED(!stream->capture, ILLEGAL_STATE);
    Capture *capture = calloc(1, sizeof *capture);
    capture->work = calloc(1, sizeof *capture->work);
    capture->work->references = 1;
    capture->origin = stream;
    capture->thread = pthread_self();
    stream->capture = capture;
    stream->is_joined = true;
    return fake_leave(SUCCESS);
}

bool fake_break_capture_of_this_thread(void) {
    bool was_broken = false;
    for (Stream *stream = fake_streams; stream; stream = stream->next)
        if (stream->capture && pthread_equal(stream->capture->thread, pthread_self()))
            stream->capture->is_broken = was_broken = true;
    return was_broken;
}

/* Its streams work again; whether all of them were joined. */
static bool leave_capture(Capture *capture) {
    bool is_joined = true;
    for (Stream *stream = fake_streams; stream; stream = stream->next)
        if (stream->capture == capture) {
            is_joined = is_joined && stream->is_joined;
            stream->capture = NULL;
        }
    return is_joined;
}

CUresult cuStreamEndCapture(Stream *stream, Graph **made) {
    *made = NULL;
    CUresult entered = fake_enter_context("cuStreamEndCapture");
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    Capture *capture = stream->capture;
    if (entered && capture) { /* whatever it fails for, the capture is over */
        leave_capture(capture);
        release(capture->work);
    }
    NEED(!entered, entered);
    NEED(capture && capture->origin == stream, ILLEGAL_STATE);
    NEED(pthread_equal(capture->thread, pthread_self()), CAPTURE_WRONG_THREAD);
    bool is_joined = leave_capture(capture);
    if (capture->is_broken || !is_joined) {
        release(capture->work);
        return fake_leave(capture->is_broken ? CAPTURE_INVALIDATED : CAPTURE_UNJOINED);
    }
    Graph *graph = fake_object(GRAPH, sizeof *graph);
    graph->work = capture->work;
    *made = graph;
    return fake_leave(SUCCESS);
}

CUresult cuStreamIsCapturing(Stream *stream, int *status) {
    enum { NONE, ACTIVE, INVALIDATED };
    ENTER_CONTEXT(cuStreamIsCapturing);
    NEED(fake_is(stream, STREAM), INVALID_HANDLE);
    const Capture *capture = stream->capture;
    *status = !capture ? NONE : capture->is_broken ? INVALIDATED : ACTIVE;
    return fake_leave(SUCCESS);
}

CUresult cuGraphInstantiateWithFlags(Graph **made, Graph *graph, unsigned long long flags) {
    (void)flags;
    ENTER_CONTEXT(cuGraphInstantiateWithFlags);
    NEED(fake_is(graph, GRAPH), INVALID_HANDLE);
    Graph *ready = fake_object(GRAPH_EXEC, sizeof *ready);
    ready->work = graph->work;
    ready->work->references++;
    *made = ready;
    return fake_leave(SUCCESS);
}

CUresult cuGraphLaunch(Graph *graph, Stream *stream) {
    ENTER_CONTEXT(cuGraphLaunch);
    NEED(fake_is(graph, GRAPH_EXEC) && fake_is(stream, STREAM), INVALID_HANDLE);
    graph->work->references++;
    return fake_leave(fake_ask(stream, (Op){.what = REPLAY, .work = graph->work}));
}

static CUresult destroy(Graph *graph, Kind kind) {
    if (!fake_is(graph, kind)) return INVALID_HANDLE;
    fake_dispose(&graph->object);
    release(graph->work);
    return SUCCESS;
}

CUresult cuGraphDestroy(Graph *graph) {
    ENTER_CONTEXT(cuGraphDestroy);
    return fake_leave(destroy(graph, GRAPH));
}

CUresult cuGraphExecDestroy(Graph *graph) {
    ENTER_CONTEXT(cuGraphExecDestroy);
    return fake_leave(destroy(graph, GRAPH_EXEC));
}
