"""The list of extensions and the switches that change how they are built.

WIRESPEED_NO_EXTENSIONS=1  builds a pure package, which runs on aiohttp's own classes.
WIRESPEED_REQUIRE_EXTENSIONS=1  makes a failed compilation fail the build (wheels, CI).
WIRESPEED_DEBUG=1  builds with C assertions, without optimisation and with line tracing.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("src/wirespeed/_core")


def is_set(switch: str) -> bool:
    return os.environ.get(switch, "") not in ("", "0")


def extensions() -> list[Extension]:
    """Cythonize every module of the core; each is an extension of its own."""
    if is_set("WIRESPEED_NO_EXTENSIONS"):
        return []
    from Cython.Build import cythonize

    debug = is_set("WIRESPEED_DEBUG")
    macros = [("CYTHON_TRACE", "1")] if debug else [("NDEBUG", "1")]
    flags = [] if os.name == "nt" else (["-O0", "-g"] if debug else ["-O3"])
    modules = [
        Extension(
            f"wirespeed._core.{source.stem}",
            [source.as_posix()],
            define_macros=macros,
            extra_compile_args=flags,
            # Without a compiler the installation still succeeds, as a pure package.
            optional=not is_set("WIRESPEED_REQUIRE_EXTENSIONS"),
        )
        for source in sorted(CORE.glob("*.pyx"))
    ]
    directives = {
        "language_level": 3,
        "auto_pickle": False,
        "embedsignature": True,
        "freethreading_compatible": True,
        "boundscheck": debug,
        "wraparound": debug,
        "linetrace": debug,
    }
    return list(
        cythonize(modules, include_path=["src"], compiler_directives=directives, force=debug)
    )


setup(ext_modules=extensions())
