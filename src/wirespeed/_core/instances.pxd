"""Instances made without a call of their class.

A class may have an `__init__` or a `__new__` in Python, its own, or one that a tool or `install()` has put
there; both are gone around, as what they would do is done by whoever asks. Classes are objects here:
Cython's `type` takes none that has a metaclass.
"""


cdef extern from *:
    """
    static inline PyObject *wirespeed_allocate(PyObject *cls) {
        return ((PyTypeObject *)cls)->tp_alloc((PyTypeObject *)cls, 0);
    }
    static inline PyObject *wirespeed_new(PyObject *cls, PyObject *arguments) {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, arguments, NULL);
    }
    """
    # Of a class with Python's own layout.
    object allocate "wirespeed_allocate"(object cls)
    object wirespeed_new(object cls, object arguments)


# Of a class that is derived from one of the core, which has fields to be set up.
cdef inline object new_instance(object cls):
    return wirespeed_new(cls, ())
