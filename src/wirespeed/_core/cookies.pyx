"""The field Cookie of a URL, remembered for as long as nothing has changed that has a say in it.

aiohttp's jar walks its cookies and writes the field anew for each request, 20 µs for two cookies. What it
looks at for one URL is little: the cookies at a few pairs of domain and path, three settings, the time of
the next expiry. All of it is compared by identity before each use, so that nothing has to tell us of
changes. Called by the request. This is the one module of the core that knows names inside aiohttp's
`CookieJar`; `remember` finds out whether they are there.
"""

import time

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject

# Cookies of one URL, beyond which the jar is asked each time; it has limits of its own on what it sends.
cdef enum:
    RECORDS_MAX = 24
    VALUE_MAX = 2048


cdef inline object _get(object found, object key):
    """Look up in a dict, or in a subclass, past its own methods."""
    cdef PyObject* value = PyDict_GetItemWithError(found, key)
    return None if value is NULL else <object> value


@cython.final
cdef class CookieRecord:
    pass


@cython.final
cdef class CookieHeader:
    cdef bint holds(self, dict jar) except -1:
        """Whether the jar would send the same now.

        Args:
            jar: the dictionary of its attributes.
        """
        cdef Py_ssize_t i
        cdef CookieRecord record
        if (
            _get(jar, "_quote_cookie") is not self.quotes or _get(jar, "_unsafe") is not self.unsafe
            or _get(jar, "_treat_as_secure_origin") is not self.secure_origins
        ):
            return False
        heap = _get(jar, "_expire_heap")
        # By the name that tools patch to set the clock, and that the jar calls.
        if heap and heap[0][0] <= time.time():
            return False
        cookies = _get(jar, "_cookies")
        for i in range(len(self.pairs)):
            bucket = _get(cookies, self.pairs[i])
            if bucket is not self.buckets[i] or (bucket is not None and len(bucket) != self.sizes[i]):
                return False
        host_only = _get(jar, "_host_only_cookies")
        cache = _get(jar, "_morsel_cache")
        for record in self.records:
            morsel = _get(_get(cookies, record.pair), record.name)
            if (
                morsel is not record.morsel or _get(morsel, "secure") is not record.secure
                or _get(morsel, "domain") is not record.domain or _get(morsel, "path") is not record.path
                or (record.key in <set> host_only) != record.is_host_only
            ):
                return False
            entries = _get(cache, record.pair)
            if (None if entries is None else _get(entries, record.name)) is not record.entry:
                return False
            if record.entry is not None and record.entry[0]._coded_value is not record.coded_value:
                return False
        return True

    cdef int touch(self, dict jar) except -1:
        """Note for the jar that its cookies were used: it drops those that were not for longest."""
        cdef dict generations
        if self.used:
            jar["_next_access_generation"] += 1
            generation = jar["_next_access_generation"]
            generations = jar["_access_generations"]
            for key in self.used:
                generations[key] = generation
        return 0


def remember(jar, pairs, value):
    """Remember what a jar has just given.

    Args:
        jar: aiohttp's; its `filter_cookies` was called just now.
        pairs: the (domain, path) at which cookies of the URL may be.
        value: of the field Cookie, or None.

    Returns:
        A CookieHeader, or None where it is better not remembered.
    """
    cdef CookieHeader header = CookieHeader.__new__(CookieHeader)
    cdef CookieRecord record
    cdef dict own = jar.__dict__
    try:
        cookies, cache = own["_cookies"], own["_morsel_cache"]
        host_only, generations = own["_host_only_cookies"], own["_access_generations"]
        generation = own["_next_access_generation"]
        header.quotes, header.unsafe = own["_quote_cookie"], own["_unsafe"]
        header.secure_origins = own["_treat_as_secure_origin"]
        heap = own["_expire_heap"]
    except KeyError:
        return None
    kinds = ((cookies, dict), (cache, dict), (host_only, set), (generations, dict), (heap, list))
    if not all([isinstance(thing, kind) for thing, kind in kinds]) or len(value or "") > VALUE_MAX:
        return None
    header.value = value
    header.pairs, header.buckets, header.sizes, header.records = [], [], [], []
    header.used = []
    for pair in pairs:
        bucket = dict.get(cookies, pair)
        header.pairs.append(pair)
        header.buckets.append(bucket)
        header.sizes.append(0 if bucket is None else len(bucket))
        for name, morsel in () if bucket is None else bucket.items():
            record = CookieRecord.__new__(CookieRecord)
            record.pair, record.name, record.key, record.morsel = pair, name, (*pair, name), morsel
            record.secure, record.domain, record.path = morsel["secure"], morsel["domain"], morsel["path"]
            record.is_host_only = record.key in host_only
            entries = dict.get(cache, pair)
            record.entry = None if entries is None else entries.get(name)
            if record.entry is not None:
                record.coded_value = record.entry[0]._coded_value
            header.records.append(record)
            if value is not None and generations.get(record.key) == generation:
                header.used.append(record.key)
    return header if len(header.records) <= RECORDS_MAX else None
