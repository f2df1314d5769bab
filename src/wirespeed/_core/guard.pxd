# Whether classes were changed since they were last looked at, told without looking at their members.

from wirespeed._core.limits cimport WATCHED_MAX


cdef class Watch:
    cdef readonly tuple classes
    cdef unsigned int _versions[WATCHED_MAX]  # each class's version tag; 0 where it has none
    cdef Py_ssize_t _count
    cdef readonly long long generation        # how often a change was taken note of

    # Asking

    cpdef bint is_unchanged(self) noexcept
    cpdef int remember(self) except -1
    cpdef int forget(self) except -1
