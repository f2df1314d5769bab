"""Whether classes were changed since they were last looked at.

CPython gives each class a version tag for its method cache and takes it away when the class
or a base of it is changed. Comparing the tags of a few classes takes nanoseconds, where
comparing the members that matter takes a microsecond. A tag that is missing counts as a
change, so that the answer errs on the side of looking: CPython 3.13 gives a class 1,000 tags
in its life, so one that was patched 500 times is looked at every time. Called by lanes.py at
each request.
"""

from cpython.object cimport PyObject


cdef extern from *:
    """
    /* 0 when the class has no valid tag. Before 3.12 a flag says whether the tag is valid. */
    static inline unsigned int wirespeed_version_of(PyObject *cls) {
        PyTypeObject *type = (PyTypeObject *)cls;
    #if PY_VERSION_HEX < 0x030C0000
        if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
    #endif
        return type->tp_version_tag;
    }
    """
    unsigned int wirespeed_version_of(PyObject *cls) noexcept


cdef class Watch:
    """Tells whether any of some classes, or of their bases, was changed.

    Args:
        classes: at most `WATCHED_MAX` of them.

    Raises:
        ValueError: more classes than that.
    """

    def __cinit__(self, *classes):
        if len(classes) > WATCHED_MAX:
            raise ValueError(f"at most {WATCHED_MAX} classes can be watched, not {len(classes)}")
        self.classes = classes
        self._count = len(classes)

    # Asking

    cpdef bint is_unchanged(self) noexcept:
        """Whether no class has changed since `remember()`; false before the first one."""
        cdef Py_ssize_t i
        cdef unsigned int version
        for i in range(self._count):
            version = self._versions[i]
            if version == 0 or version != wirespeed_version_of(<PyObject *>self.classes[i]):
                return False
        return True

    cpdef int forget(self) except -1:
        """Take no class for unchanged until the next `remember()`."""
        cdef Py_ssize_t i
        for i in range(self._count):
            self._versions[i] = 0
        return 0

    cpdef int remember(self) except -1:
        """Take the classes as they are now for unchanged."""
        cdef Py_ssize_t i
        self.generation += 1
        for i in range(self._count):
            # A lookup through the method cache gives a class its tag.
            getattr(self.classes[i], "__init__")
            self._versions[i] = wirespeed_version_of(<PyObject *>self.classes[i])
        return 0
