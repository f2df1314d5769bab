"""The list of extensions and the switches that change how they are built.

WIRESPEED_NO_EXTENSIONS=1  builds a pure package, which runs on aiohttp's own classes.
WIRESPEED_REQUIRE_EXTENSIONS=1  makes a failed compilation fail the build (wheels, CI).
WIRESPEED_DEBUG=1  builds with C assertions, without optimisation and with line tracing.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py


def is_set(switch: str) -> bool:
    return os.environ.get(switch, "") not in ("", "0")


DEBUG = is_set("WIRESPEED_DEBUG")
ARCHIVED = ("src/wirespeed", "tests", "benchmarks", ".ci")
GENERATED = {".c", ".so", ".pyd", ".pyc", ".html"}
DIRECTIVES = {
    "language_level": 3,
    "auto_pickle": False,
    "embedsignature": True,
    "freethreading_compatible": True,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "linetrace": DEBUG,
}


class BuildPy(build_py):
    def get_source_files(self) -> list[str]:
        """Name what the source archive holds besides the modules; sdist asks this command."""
        found = (path for top in ARCHIVED for path in sorted(Path(top).rglob("*")) if path.is_file())
        more = [path.as_posix() for path in found if path.suffix not in GENERATED]
        return [*super().get_source_files(), *more, "CHANGELOG.md"]


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        """Write the C files below `build/`, one after the other; compilers then run in parallel."""
        from Cython.Build import cythonize

        options = {"include_path": ["src"], "compiler_directives": DIRECTIVES}
        made = cythonize(self.extensions, build_dir=self.build_temp, force=self.force, **options)
        sources = {extension.name: extension.sources for extension in made}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().build_extensions()


def extension(source: Path) -> Extension:
    """Describe one module of the core; each is an extension of its own."""
    optimise = ["-O0", "-g"] if DEBUG else ["-O3", "-g0"]
    if "-O" in os.environ.get("CFLAGS", ""):
        optimise = []  # whoever builds has decided
    return Extension(
        f"wirespeed._core.{source.stem}",
        [source.as_posix()],
        define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [("NDEBUG", "1")],
        undef_macros=["NDEBUG"] if DEBUG else [],
        extra_compile_args=[] if os.name == "nt" else optimise,
        # Without a compiler the installation still succeeds, as a pure package.
        optional=not is_set("WIRESPEED_REQUIRE_EXTENSIONS"),
    )


pure = is_set("WIRESPEED_NO_EXTENSIONS")
core = [] if pure else sorted(Path("src/wirespeed/_core").glob("*.pyx"))
setup(
    ext_modules=[extension(source) for source in core],
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    options={
        # Debug objects never mix with release ones.
        "build": {"build_base": "build/debug" if DEBUG else "build/release"},
        "build_ext": {"parallel": 0 if os.name == "nt" else os.cpu_count()},
    },
)
