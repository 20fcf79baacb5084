/* Appending from Python: the calls that are made for every event, written by hand.
 *
 * What cffi makes lets go of Python's lock around every call. To get it back a thread may have to wait
 * for one that computes, 5 ms and more, and two threads that append hand it to and fro in every call.
 * An append of a short event takes less than the handing over. So here the lock is kept while an
 * append is short and sure not to wait, and let go for all others: docs/design/0013.
 *
 * A second module in the file of the first, so that there is one copy of the library; _ffi.py loads
 * both. What is refused is left to a function in Python that raises: it is not on the short way. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "_core.h"
#include "vev_log.h"

/* An append of up to so many bytes keeps Python's lock: some 250 detections, which take 40 us on a
 * desktop's core. Others who want the lock wait for 5 ms before they even ask for it. */
enum { SHORT_SIZE = 8192 };

/* ---- where a thread builds its events ---- */

enum { SCRATCH_SIZE = 1 << 16, SCRATCH_SIZE_MAX = 1 << 24 };

typedef struct scratch {
    vev_event event;
    size_t size;
    uint8_t *bytes;
} scratch;

static _Thread_local scratch *own_scratch;
static pthread_key_t scratch_key; /* frees it when the thread ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void free_scratch(void *memory)
{
    scratch *s = memory;
    free(s->bytes);
    free(s);
}

static void make_scratch_key(void) { (void)pthread_key_create(&scratch_key, free_scratch); }

/* NULL with an exception when there is no memory. Whoever failed to grow has what it had before. */
static scratch *scratch_of_size(size_t size)
{
    scratch *s = own_scratch;
    if (!s) {
        (void)pthread_once(&scratch_once, make_scratch_key);
        s = calloc(1, sizeof *s);
        if (!s || pthread_setspecific(scratch_key, s) != 0) {
            free(s);
            return (scratch *)PyErr_NoMemory();
        }
        own_scratch = s;
    }
    if (s->size < size) {
        uint8_t *bytes = realloc(s->bytes, size);
        if (!bytes)
            return (scratch *)PyErr_NoMemory();
        s->bytes = bytes;
        s->size = size;
    }
    return s;
}

/* ---- the log ---- */

typedef struct appender {
    PyObject ob_base;
    vev_log *log;    /* NULL: closed */
    PyObject *owner; /* keeps the log open */
    PyObject *fail;  /* (status, what, what is wrong with the event): raises */
    PyObject *name;  /* of the log, for its messages */
} appender;

/* Raise what a status stands for; 0: that the log is closed. Most of them are about the log, and
 * that is what the message has to name. */
static PyObject *fail(const appender *self, vev_status status, int stream, const char *event_error)
{
    PyObject *nothing =
        stream == VEV_EVENTS && (status == VEV_E_INVALID || status == VEV_E_TOO_BIG)
            ? PyObject_CallFunction(self->fail, "isy", status, "event", event_error)
            : PyObject_CallFunction(self->fail, "iOy", status, self->name, event_error);
    Py_XDECREF(nothing);
    if (nothing)
        PyErr_SetString(PyExc_SystemError, "an append that failed was taken for one that did not");
    return NULL;
}

/* To a log that is open. */
static vev_status append_to(const appender *self, int stream, const void *payload, size_t size,
                            vev_entry *entry)
{
    vev_log *log = self->log;
    if (size <= SHORT_SIZE && !(entry->flags & VEV_APPEND_SYNC) &&
        vev__log_has_room(log, stream, size))
        return vev_log_append(log, stream, payload, size, entry);
    /* Another thread may close it meanwhile; if so, that happens when this is done with it. */
    PyObject *owner = Py_NewRef(self->owner);
    PyThreadState *own = PyEval_SaveThread();
    vev_status status = vev_log_append(log, stream, payload, size, entry);
    PyEval_RestoreThread(own);
    Py_DECREF(owner);
    return status;
}

static int appender_init(PyObject *object, PyObject *arguments, PyObject *Py_UNUSED(names))
{
    appender *self = (appender *)object;
    PyObject *address, *owner, *raises, *name;
    if (!PyArg_ParseTuple(arguments, "OOOU:Appender", &address, &owner, &raises, &name))
        return -1;
    self->log = PyLong_AsVoidPtr(address);
    if (PyErr_Occurred())
        return -1;
    self->owner = Py_NewRef(owner);
    self->fail = Py_NewRef(raises);
    self->name = Py_NewRef(name);
    return 0;
}

static void appender_dealloc(PyObject *object)
{
    appender *self = (appender *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->owner);
    Py_XDECREF(self->fail);
    Py_XDECREF(self->name);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(object);
    Py_DECREF(type);
}

static PyObject *appender_close(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    appender *self = (appender *)object;
    PyObject *owner = self->owner;
    self->log = NULL;
    self->owner = NULL;
    Py_XDECREF(owner);
    Py_RETURN_NONE;
}

/* Whether so many arguments were given; else TypeError. */
static bool are(Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted)
        return true;
    PyErr_Format(PyExc_TypeError, "takes %zd arguments, %zd were given", wanted, count);
    return false;
}

static PyObject *appender_append(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    const appender *self = (appender *)object;
    if (!are(count, 3))
        return NULL;
    unsigned long kind = PyLong_AsUnsignedLong(arguments[1]);
    vev_entry entry = {.kind = kind > UINT32_MAX ? UINT32_MAX : (uint32_t)kind,
                       .flags = (uint32_t)PyLong_AsUnsignedLong(arguments[2])};
    Py_buffer payload;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &payload, PyBUF_SIMPLE))
        return NULL;
    vev_status status = VEV_OK;
    const bool open = self->log != NULL; /* now: it may be closed meanwhile */
    if (open)
        status = append_to(self, VEV_EVENTS, payload.buf, (size_t)payload.len, &entry);
    PyBuffer_Release(&payload);
    if (status || !open)
        return fail(self, status, VEV_EVENTS, "");
    return PyLong_FromUnsignedLongLong(entry.seq);
}

static PyObject *appender_append_record(PyObject *object, PyObject *arguments)
{
    const appender *self = (appender *)object;
    int stream;
    long long wall_ns;
    vev_entry entry = {0};
    Py_buffer payload, id;
    if (!PyArg_ParseTuple(arguments, "iy*IIz*L:append_record", &stream, &payload, &entry.flags,
                          &entry.kind, &id, &wall_ns))
        return NULL;
    entry.wall_ns = wall_ns;
    bool id_fits = !id.buf || id.len == sizeof entry.id;
    if (id.buf && id_fits)
        memcpy(entry.id, id.buf, sizeof entry.id);
    vev_status status = id_fits ? VEV_OK : VEV_E_INVALID;
    const bool open = self->log != NULL;
    if (open && !status)
        status = append_to(self, stream, payload.buf, (size_t)payload.len, &entry);
    PyBuffer_Release(&payload);
    PyBuffer_Release(&id);
    if (status || !open)
        return fail(self, status, stream, "");
    return Py_BuildValue("(Ky#L)", (unsigned long long)entry.seq, (const char *)entry.id,
                         (Py_ssize_t)sizeof entry.id, (long long)entry.wall_ns);
}

static PyMethodDef appender_methods[] = {
    {"append", (PyCFunction)(void (*)(void))appender_append, METH_FASTCALL, NULL},
    {"append_record", appender_append_record, METH_VARARGS, NULL},
    {"close", appender_close, METH_NOARGS, NULL},
    {0},
};

static PyType_Spec appender_spec = {
    .name = "vevents._append.Appender",
    .basicsize = sizeof(appender),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = (PyType_Slot[]){{Py_tp_init, appender_init},
                             {Py_tp_dealloc, appender_dealloc},
                             {Py_tp_methods, appender_methods},
                             {0}},
};

/* ---- detections ---- */

typedef struct writer {
    PyObject ob_base;
    appender *to;
    PyObject *owner; /* keeps alive what the next points to */
    const py_writer *common;
} writer;

static int writer_init(PyObject *object, PyObject *arguments, PyObject *Py_UNUSED(names))
{
    writer *self = (writer *)object;
    PyObject *module = PyType_GetModule(Py_TYPE(object)), *to, *address, *owner;
    PyObject *kind = module ? PyObject_GetAttrString(module, "Appender") : NULL;
    bool parsed = kind && PyArg_ParseTuple(arguments, "O!OO:Writer", kind, &to, &address, &owner);
    Py_XDECREF(kind);
    if (!parsed)
        return -1;
    self->common = PyLong_AsVoidPtr(address);
    if (PyErr_Occurred())
        return -1;
    self->to = (appender *)Py_NewRef(to);
    self->owner = Py_NewRef(owner);
    return 0;
}

static void writer_dealloc(PyObject *object)
{
    writer *self = (writer *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF((PyObject *)self->to);
    Py_XDECREF(self->owner);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(object);
    Py_DECREF(type);
}

/* The arrays of one event. */
typedef struct arrays {
    Py_buffer views[3];
    int count; /* of views */
} arrays;

static void let_go(arrays *a)
{
    while (a->count > 0)
        PyBuffer_Release(&a->views[--a->count]);
}

/* Take an array if it is what C can read as it is: contiguous, aligned, of these native numbers and
 * dimensions. NULL without an exception if it is not. */
static const Py_buffer *take(arrays *a, PyObject *object, const char *formats, int dimensions)
{
    Py_buffer *view = &a->views[a->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
        PyErr_Clear();
        return NULL;
    }
    a->count++;
    bool fits = view->format && view->format[0] && !view->format[1] &&
                strchr(formats, view->format[0]) && view->ndim == dimensions &&
                (uintptr_t)view->buf % (size_t)view->itemsize == 0;
    return fits ? view : NULL;
}

static const char FLOATS[] = "f";
/* int64_t by either name. */
static const char INTEGERS[] = {sizeof(long) == 8 ? 'l' : 'q', 'q', 0};

/* Take a frame: (seq, digest, size), or None. What makes no sense there becomes the event's error. */
static void take_frame(PyObject *given, vev_event *event)
{
    if (given == Py_None)
        return;
    PyObject *numbers[2];
    const char *digest;
    Py_ssize_t digest_size;
    unsigned long long seq = 0, size = 0;
    if (PyArg_ParseTuple(given, "Oy#O", &numbers[0], &digest, &digest_size, &numbers[1]) &&
        digest_size == 16) {
        seq = PyLong_AsUnsignedLongLong(numbers[0]);
        size = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(numbers[1]);
    }
    if (PyErr_Occurred() || size == 0) {
        PyErr_Clear();
        vev_event_image_frame(event, 0, NULL, 0);
    } else {
        vev_event_image_frame(event, seq, (const uint8_t *)digest, size);
    }
}

/* Build an event from arrays and append it. `boxes` is NULL when `rows` are given. */
static PyObject *append_arrays(const writer *self, const vev_boxes *boxes, const float *rows,
                               size_t count, PyObject *frame, PyObject *flags)
{
    const py_writer *common = self->common;
    vev_entry entry = {.flags = (uint32_t)PyLong_AsUnsignedLong(flags)};
    if (PyErr_Occurred())
        return NULL;
    if (!self->to->log)
        return fail(self->to, VEV_OK, VEV_EVENTS, "");
    size_t size = SCRATCH_SIZE;
    for (;;) {
        scratch *s = scratch_of_size(size);
        if (!s)
            return NULL;
        vev_event *event = &s->event;
        vev_event_copy(event, s->bytes, s->size, common->base);
        take_frame(frame, event);
        if (boxes)
            vev_event_boxes(event, boxes);
        else
            vev_event_rows(event, rows, count, common->class_names, common->class_count);
        vev_event_image_end(event);
        const void *payload;
        size_t payload_size;
        vev_status status = vev_event_finish(event, &payload, &payload_size, &entry);
        if (status == VEV_E_TOO_BIG && s->size < SCRATCH_SIZE_MAX) {
            size = 4 * s->size;
            continue;
        }
        if (status)
            return fail(self->to, status, VEV_EVENTS, vev_event_error(event));
        status = append_to(self->to, VEV_EVENTS, payload, payload_size, &entry);
        return status ? fail(self->to, status, VEV_EVENTS, "")
                      : PyLong_FromUnsignedLongLong(entry.seq);
    }
}

static PyObject *writer_append(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    const writer *self = (writer *)object;
    if (!are(count, 5))
        return NULL;
    arrays a = {.count = 0};
    const Py_buffer *xyxy = take(&a, arguments[0], FLOATS, 2);
    const Py_buffer *confidence = xyxy ? take(&a, arguments[1], FLOATS, 1) : NULL;
    const Py_buffer *class_id = confidence ? take(&a, arguments[2], INTEGERS, 1) : NULL;
    PyObject *answer = NULL;
    if (class_id && xyxy->shape[1] == 4 && xyxy->shape[0] == confidence->shape[0] &&
        class_id->shape[0] == confidence->shape[0]) {
        const vev_boxes boxes = {.xyxy = xyxy->buf,
                                 .confidence = confidence->buf,
                                 .class_id = class_id->buf,
                                 .count = (size_t)confidence->shape[0],
                                 .class_names = self->common->class_names,
                                 .class_count = self->common->class_count};
        answer = append_arrays(self, &boxes, NULL, 0, arguments[3], arguments[4]);
    } else {
        answer = Py_NewRef(Py_None);
    }
    let_go(&a);
    return answer;
}

static PyObject *writer_append_rows(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    const writer *self = (writer *)object;
    if (!are(count, 3))
        return NULL;
    arrays a = {.count = 0};
    const Py_buffer *rows = take(&a, arguments[0], FLOATS, 2);
    PyObject *answer = rows && rows->shape[1] == 6
                           ? append_arrays(self, NULL, rows->buf, (size_t)rows->shape[0],
                                           arguments[1], arguments[2])
                           : Py_NewRef(Py_None);
    let_go(&a);
    return answer;
}

static PyMethodDef writer_methods[] = {
    {"append", (PyCFunction)(void (*)(void))writer_append, METH_FASTCALL, NULL},
    {"append_rows", (PyCFunction)(void (*)(void))writer_append_rows, METH_FASTCALL, NULL},
    {0},
};

static PyType_Spec writer_spec = {
    .name = "vevents._append.Writer",
    .basicsize = sizeof(writer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = (PyType_Slot[]){{Py_tp_init, writer_init},
                             {Py_tp_dealloc, writer_dealloc},
                             {Py_tp_methods, writer_methods},
                             {0}},
};

/* ---- the module ---- */

static int add_types(PyObject *module)
{
    PyType_Spec *specs[] = {&appender_spec, &writer_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int failed = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
        Py_XDECREF(type);
        if (failed)
            return -1;
    }
    return 0;
}

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "vevents._append",
    .m_slots = (PyModuleDef_Slot[]){{Py_mod_exec, add_types}, {0}},
};

PyMODINIT_FUNC PyInit__append(void) { return PyModuleDef_Init(&module); }
