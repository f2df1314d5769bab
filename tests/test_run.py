"""`wirespeed run`: a program cannot tell it from Python itself, and its requests run on the core."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from typing import Any

import pytest

import wirespeed
from wirespeed.cli import run as command
from wirespeed.testing.process import ServerProcess

Done = subprocess.CompletedProcess[str]
PLAIN = (sys.executable,)
OURS = (sys.executable, "-c", "from _wirespeed_command import main; main()", "run")
"""As the installed script does it, wherever the script is."""
AS_MODULE = (sys.executable, "-m", "wirespeed", "run")
SECONDS = 40
WATCHED = {"aiohttp", "asyncio", "wirespeed"}

PROBE = """
import json, os, sys
environment = {name: value for name, value in os.environ.items() if name not in ("_", "LC_CTYPE")}
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "name": __name__, "file": globals().get("__file__"),
    "spec": __spec__ and [__spec__.name, __spec__.origin, type(__spec__.loader).__name__],
    "package": __package__, "path": sys.path, "path_hooks": len(sys.path_hooks),
    "cache": sorted(sys.path_importer_cache), "modules": sorted(sys.modules), "flags": list(sys.flags),
    "warnoptions": sys.warnoptions, "stdin": sys.stdin.read(), "environment": environment,
    "main_is_main": sys.modules["__main__"].__dict__ is globals(),
}))
"""


class Programs:
    """Runs programs in a folder, plainly and in `wirespeed run`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return name

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, stdin: str = "", **env: str) -> Done:
        with self.start(*command, **env) as process:
            try:
                out, err = process.communicate(stdin, timeout=SECONDS)
            finally:
                process.kill()
        return Done(command, process.returncode, out, err)

    def both(self, *arguments: str, stdin: str = "", **env: str) -> tuple[Done, Done]:
        plain, ours = (self.run(*way, *arguments, stdin=stdin, **env) for way in (PLAIN, OURS))
        return plain, ours

    def same(self, *arguments: str, stdin: str = "", **env: str) -> Done:
        """Run both ways, which must not differ in code and output; returns one of them."""
        plain, ours = self.both(*arguments, stdin=stdin, **env)
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
        return ours

    def output(self, *arguments: str, **env: str) -> Any:
        """Return the JSON that a program prints in `wirespeed run`, where it must succeed in silence."""
        done = self.run(*OURS, *arguments, **env)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ServerProcess() as running:
        yield running.url


@pytest.mark.parametrize(
    "arguments",
    [
        ("probe.py", "one", "--help", "-m", "", "--loop"),
        ("./probe.py",),
        ("-m", "probe", "-x", "--help"),
        ("-mprobe",),
        ("-m", "package", "two words"),
        ("-m", "package.inner", "--", "-"),
        ("folder", "three"),
        ("-c", PROBE, "-c", "four"),
        ("-", "five"),
    ],
    ids=lambda arguments: " ".join(arguments)[:20].strip(),
)
def test_program_finds_everything_as_python_leaves_it(programs: Programs, arguments: tuple[str, ...]) -> None:
    for name in ("probe.py", "package/__main__.py", "package/inner.py", "folder/__main__.py"):
        programs.write(name, PROBE)
    programs.write("package/__init__.py", "")
    stdin = PROBE if arguments[0] == "-" else "what\nis read"
    plain, ours = (json.loads(done.stdout) for done in programs.both(*arguments, stdin=stdin))
    assert {name for name in ours["modules"] if name not in plain["modules"]} == {"_wirespeed_hooks"}
    assert set(plain["modules"]) <= set(ours["modules"])
    # What children are reached by.
    added = {**ours["environment"]}
    assert added.pop("WIRESPEED_RUN") == command.environment_mark("fast")
    assert added.pop("PYTHONPATH").split(os.pathsep)[0] == command.PRELOAD
    before = {**plain["environment"]}
    before.pop("PYTHONPATH", None)
    assert added == before
    for name in ("modules", "environment"):
        del plain[name], ours[name]
    assert ours == plain


@pytest.mark.parametrize("path", [None, "", "there", os.pathsep.join(["there", "", "again"])])
def test_entries_of_pythonpath_stay(programs: Programs, path: str | None) -> None:
    env = {} if path is None else {"PYTHONPATH": path}
    # The sources are not on the path in these, so they run wirespeed by its folder.
    shown = "import sys; print(sys.path)"
    plain = programs.run(*PLAIN, "-c", shown, **env)
    ours = programs.run(
        *PLAIN, "-c", shown, **command.environment({**os.environ, **env} if env else os.environ, "fast")
    )
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)


@pytest.mark.parametrize(
    "body",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit()",
        "raise SystemExit('a string')",
        "import os; os._exit(5)",
        "def f():\n    raise ValueError('why')\n"
        "try:\n    f()\nexcept ValueError as exc:\n    raise KeyError(1) from exc",
        "this is no Python",
        "import no_such_module",
        "import broken.inner",
        "import warnings; warnings.warn('seen', stacklevel=2)",
        "import atexit, threading, time\natexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\nprint('end')",
        "import asyncio, sys\nasync def main(): return 4\nsys.exit(asyncio.run(main()))",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os; os.abort()",
    ],
)
def test_exit_code_and_output_are_pythons(programs: Programs, body: str) -> None:
    programs.write("broken/__init__.py", "")
    programs.write("broken/inner.py", "1 / 0")
    programs.same(programs.write("program.py", body + "\n"))


def test_failed_import_of_aiohttp_shows_no_frame_of_ours(programs: Programs) -> None:
    programs.write("aiohttp/__init__.py", "from . import client\n")
    programs.write("aiohttp/client.py", "import warnings\nwarnings.warn('w', stacklevel=2)\nimport no_such\n")
    done = programs.same(
        programs.write("program.py", "try:\n    import aiohttp\nfinally:\n    import aiohttp\n")
    )
    assert "No module named 'no_such'" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("no_such.py",), ("-m", "no_such"), ("-m",), ("-c",), ("empty",)], ids=" ".join
)
def test_program_that_is_not_there_gives_pythons_message(
    programs: Programs, arguments: tuple[str, ...]
) -> None:
    (programs.folder / "empty").mkdir()
    assert programs.same(*arguments).returncode == (1 if arguments in (("-m", "no_such"), ("empty",)) else 2)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_the_programs(programs: Programs, number: int) -> None:
    # Another thread says so, while this one is asleep: else the traceback may show the print.
    programs.write(
        "program.py",
        "import threading, time\n"
        "threading.Timer(0.5, print, ['ready'], {'flush': True}).start()\n"
        "time.sleep(30)\n",
    )
    ends = []
    for way in (PLAIN, OURS, AS_MODULE):
        with programs.start(*way, "program.py") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            ends.append((*process.communicate(timeout=SECONDS), process.returncode))
    assert ends[1:] == [ends[0]] * 2
    assert ends[0][2] == -number


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupt_cancels_the_main_task(programs: Programs) -> None:
    programs.write(
        "program.py",
        "import asyncio\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_later(0.3, lambda: print('ready', flush=True))\n"
        "    try:\n"
        "        await asyncio.sleep(30)\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "asyncio.run(main())\n",
    )
    ends = []
    for way in (PLAIN, OURS):
        with programs.start(*way, "program.py") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
            ends.append((out, process.returncode, err.splitlines()[-1]))
    assert ends[0] == ends[1] == ("cleaned up\n", -signal.SIGINT, "KeyboardInterrupt")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_signal_that_is_ignored_stays_ignored(programs: Programs) -> None:
    shown = (
        "import signal; print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)])"
    )
    ends = []
    for way in (PLAIN, OURS):
        line = "trap '' INT HUP; " + " ".join(f"'{word}'" for word in (*way, "-c", shown))
        ends.append(programs.run("sh", "-c", line).stdout)
    assert ends[0] == ends[1]
    assert "SIG_IGN" in ends[0]


# What is accelerated

REQUESTS = """
import asyncio, json, sys
from aiohttp import ClientSession, TCPConnector
import aiohttp

async def main():
    async with ClientSession(connector=TCPConnector()) as session, aiohttp.ClientSession() as other:
        seen = {"lanes": []}
        for each in (session, other):
            async with each.get(sys.argv[1] + "/json") as resp:
                assert resp.status == 200, resp
                await resp.json()
            seen["lanes"].append(each.native_stats())
    loop = asyncio.get_running_loop()
    return {**seen, "loop": type(loop).__module__, "session": type(session).__module__}

def show():
    print(json.dumps(asyncio.run(main())))

if __name__ == "__main__":
    show()
"""
EXPRESS = {"express": 1, "full": {}} if wirespeed.NATIVE else {"express": 0, "full": {"no extension": 1}}


def fast_loop() -> str:
    loop = wirespeed.new_event_loop()
    loop.close()
    return type(loop).__module__


def accelerated(loop: str | None = None) -> dict[str, Any]:
    return {"lanes": [EXPRESS] * 2, "loop": loop or fast_loop(), "session": "wirespeed.client"}


def test_program_for_aiohttp_takes_the_express_lane_on_the_fast_loop(programs: Programs, server: str) -> None:
    programs.write("program.py", REQUESTS)
    assert programs.output("program.py", server) == accelerated()
    assert programs.output("-m", "program", server) == accelerated()


def test_warnings_as_errors_find_nothing_to_say(programs: Programs, server: str) -> None:
    programs.write("program.py", REQUESTS)
    done = programs.run(
        sys.executable, "-W", "error", "-X", "dev", "-m", "wirespeed", "run", "program.py", server
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == accelerated()


def test_program_that_imports_wirespeed_is_undisturbed(programs: Programs, server: str) -> None:
    programs.write("program.py", REQUESTS.replace("import aiohttp\n", "import wirespeed as aiohttp\n"))
    assert programs.output("program.py", server) == accelerated()
    programs.write("first.py", "import wirespeed\n" + REQUESTS)
    assert programs.output("first.py", server) == accelerated()


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_children_of_multiprocessing_are_accelerated(programs: Programs, server: str, method: str) -> None:
    if method not in __import__("multiprocessing").get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    programs.write(
        "program.py",
        REQUESTS.replace("if __name__", "if 0 and __name__")
        + f"""
import concurrent.futures, multiprocessing

class Job:
    def __call__(self, url):
        sys.argv[1:] = [url]
        return type(self).__module__, asyncio.run(main())

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        print(json.dumps(pool.submit(Job(), sys.argv[1]).result()))
""",
    )
    module, seen = programs.output("program.py", server)
    assert module == ("__main__" if method == "fork" else "__mp_main__" if method == "spawn" else module)
    assert seen == accelerated()


def test_child_of_subprocess_is_accelerated(programs: Programs, server: str) -> None:
    programs.write("program.py", REQUESTS)
    programs.write(
        "parent.py",
        "import subprocess, sys\nsubprocess.run([sys.executable, 'program.py', sys.argv[1]], check=True)\n",
    )
    assert programs.output("parent.py", server) == accelerated()


@pytest.mark.parametrize(
    ("imports", "found"),
    [("json", set()), ("asyncio", {"asyncio"}), ("aiohttp", WATCHED)],
)
def test_only_what_the_program_imports_is_imported(programs: Programs, imports: str, found: set[str]) -> None:
    text = f"import {imports}, json, sys; print(json.dumps([*sys.modules]))"
    modules = set(programs.output("-c", text))
    assert modules & {*WATCHED, "uvloop", "winloop", "typing", "rich", "typer"} - {"typing"} == found


def test_package_that_is_looked_for_is_not_yet_imported(programs: Programs, server: str) -> None:
    programs.write(
        "program.py",
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec('aiohttp')\n"
        "assert type(found) is not type(sys.__spec__) and 'aiohttp' not in sys.modules\n" + REQUESTS,
    )
    assert programs.output("program.py", server) == accelerated()


def test_specs_and_loaders_are_pythons_own(programs: Programs) -> None:
    programs.write(
        "program.py",
        "import asyncio, aiohttp, wirespeed\n"
        "from importlib.machinery import ModuleSpec, SourceFileLoader\n"
        "for module in (asyncio, aiohttp, wirespeed):\n"
        "    assert type(module.__spec__) is ModuleSpec, module\n"
        "    assert type(module.__spec__.loader) is type(module.__loader__) is SourceFileLoader\n"
        "    assert not module.__spec__._initializing\n",
    )
    done = programs.run(*OURS, "program.py")
    assert (done.returncode, done.stderr) == (0, "")


# Whose loop

LOOP = """
import asyncio, json, sys, warnings

async def main():
    return [type(asyncio.get_running_loop()).__module__, type(asyncio.get_running_loop()).__qualname__]

def show(*found):
    print(json.dumps(found[0] if len(found) == 1 else found))
"""
ASYNCIOS = "asyncio."


@pytest.mark.parametrize(
    "body",
    [
        "show(asyncio.run(main()))",
        "loop = asyncio.new_event_loop()\nshow(loop.run_until_complete(main()))\nloop.close()",
        pytest.param(
            "with asyncio.Runner() as runner:\n    show(runner.run(main()))",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner came with 3.11"),
        ),
        "asyncio.run(main())\nshow(asyncio.run(main()))",
        "import threading\n"
        "thread = threading.Thread(target=lambda: show(asyncio.run(main())))\n"
        "thread.start()\n"
        "thread.join()",
        pytest.param(
            "policy = asyncio.get_event_loop_policy()\n"
            "assert type(policy) is asyncio.DefaultEventLoopPolicy\nshow(asyncio.run(main()))",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are deprecated"),
        ),
    ],
)
def test_asyncio_makes_the_fast_loop(programs: Programs, body: str) -> None:
    programs.write("program.py", LOOP + body)
    assert programs.output("program.py")[0] == fast_loop()
    assert programs.output("--loop", "asyncio", "program.py")[0].startswith(ASYNCIOS)
    assert programs.output("--loop=fast", "program.py")[0] == fast_loop()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            "show(asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(main()))",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner came with 3.11"),
        ),
        "loop = asyncio.SelectorEventLoop()\nshow(loop.run_until_complete(main()))",
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"
        "    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())\n"
        "show(asyncio.run(main()))",
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"
        "    class Own(asyncio.DefaultEventLoopPolicy):\n"
        "        def new_event_loop(self):\n"
        "            return asyncio.SelectorEventLoop()\n"
        "    asyncio.set_event_loop_policy(Own())\n"
        "show(asyncio.run(main()))",
    ],
)
def test_loop_that_the_program_chooses_is_kept(programs: Programs, body: str) -> None:
    programs.write("program.py", LOOP + body)
    assert programs.output("program.py")[0].startswith(ASYNCIOS)


def test_loop_is_asyncios_where_no_other_is_installed(programs: Programs) -> None:
    programs.write("program.py", "import sys\nsys.modules['uvloop'] = sys.modules['winloop'] = None\n" + LOOP)
    with (programs.folder / "program.py").open("a") as file:
        file.write("asyncio.run(main())\nshow(asyncio.run(main()))")
    assert programs.output("program.py")[0].startswith(ASYNCIOS)


def test_loop_made_while_python_shuts_down_is_asyncios(programs: Programs) -> None:
    """uvloop cannot be imported then, since it wants to register something for the exit."""
    programs.write(
        "program.py",
        LOOP + "import threading\nthreading.Thread(target=lambda: show(asyncio.run(main()))).start()",
    )
    assert len(programs.output("program.py")) == 2


def test_policies_of_python_3_14_are_not_touched_by_their_deprecated_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As asyncio is there: the public names warn, the private ones do not."""

    class Policy:
        _loop_factory = object

    class Deprecated:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} is deprecated")

    policy = Policy()
    asyncio, events = Deprecated(), Deprecated()
    events._get_event_loop_policy = lambda: policy  # type: ignore[attr-defined]
    asyncio.events, asyncio._DefaultEventLoopPolicy = events, Policy  # type: ignore[attr-defined]
    loader = SourceFileLoader("_wirespeed_hooks", str(Path(command.PRELOAD, "_wirespeed_hooks.py")))
    hooks = importlib.util.module_from_spec(spec_from_loader("_wirespeed_hooks", loader))  # type: ignore[arg-type]
    loader.exec_module(hooks)
    monkeypatch.setitem(sys.modules, "asyncio", asyncio)  # type: ignore[arg-type]
    hooks._use_fast_loop()
    monkeypatch.undo()
    for _ in range(2):
        loop = policy._loop_factory()
        if fast_loop().startswith(ASYNCIOS):
            assert type(loop) is object
        else:
            assert type(loop).__module__ == fast_loop()
            loop.close()  # type: ignore[attr-defined]


# Other environments, other hooks

NOTHING_OF_OURS = (
    "import sys; found = [m for m in sys.modules if 'wirespeed' in m or 'customize' in m];"
    "paths = [p for p in sys.path if 'preload' in p]; print('found %s %s' % (found, paths))"
)


def test_child_in_another_environment_is_left_alone(programs: Programs, tmp_path: Path) -> None:
    venv.create(tmp_path / "other", symlinks=os.name != "nt")
    python = tmp_path / "other" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    parent = f"import subprocess; subprocess.run([{str(python)!r}, '-W', 'error', '-c', {NOTHING_OF_OURS!r}])"
    done = programs.run(*OURS, "-c", parent)
    assert (done.stdout, done.stderr) == ("found [] []\n", "")


@pytest.mark.parametrize(
    "name", ["python2.7", "python3.6", "python3.8", *(f"python3.{minor}" for minor in range(9, 15))]
)
def test_other_versions_of_python_are_left_alone(programs: Programs, name: str) -> None:
    python = shutil.which(name)
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{name} is not here")
    if (
        subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True)
        .stdout.decode(errors="replace")
        .strip()
        == sys.prefix
    ):
        pytest.skip(f"{name} is this environment's own")
    env = command.environment({**os.environ, "PYTHONPATH": ""}, "fast")
    done = programs.run(python, "-W", "error", "-c", NOTHING_OF_OURS, **env)
    assert done.stderr == ""
    assert done.stdout.startswith("found []") or "sitecustomize" in done.stdout
    assert done.stdout.endswith(" []\n")


def test_environment_where_wirespeed_cannot_be_imported_says_so_and_goes_on(programs: Programs) -> None:
    programs.write("wirespeed.py", "raise ImportError('broken')\n")
    done = programs.run(*OURS, "-c", "import aiohttp; print(aiohttp.ClientSession.__module__)")
    assert (done.returncode, done.stdout) == (0, "aiohttp.client\n")
    assert done.stderr == "wirespeed run: aiohttp runs without wirespeed: ImportError: broken\n"


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print('mine', __name__, __file__ == sys.modules['sitecustomize'].__file__)",
        "import asyncio, aiohttp; print(aiohttp.ClientSession.__module__)",
        "1 / 0",
        "import no_such_module",
        "raise ImportError('x', name='sitecustomize')",
    ],
)
def test_sitecustomize_of_the_environment_still_runs(programs: Programs, text: str) -> None:
    programs.write("site/sitecustomize.py", text)
    path = os.pathsep.join(["site", os.environ.get("PYTHONPATH", "")])
    shown = "import sys; print(getattr(sys.modules.get('sitecustomize'), '__file__', None))"
    env = {**os.environ, "PYTHONPATH": path}
    plain = programs.run(*PLAIN, "-c", shown, **env)
    ours = programs.run(*PLAIN, "-c", shown, **command.environment(env, "fast"))  # without the launcher's own
    expected = plain.stdout.replace("aiohttp.client", "wirespeed.client")
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, expected, plain.stderr)


def test_nested_runs_are_one(programs: Programs, server: str) -> None:
    programs.write("program.py", REQUESTS)
    assert programs.output("-m", "wirespeed", "run", "program.py", server) == accelerated()
    shown = "import json, os; print(json.dumps(os.environ['PYTHONPATH'].split(os.pathsep)))"
    paths = programs.output("-m", "wirespeed", "run", "-c", shown)
    assert paths.count(command.PRELOAD) == 1


# The command line

USAGE = command.USAGE + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no program given"),
        (("--loop", "asyncio"), "no program given"),
        (("--loop",), "--loop is one of fast, asyncio, not ''"),
        (("--loop", "fats", "x.py"), "--loop is one of fast, asyncio, not 'fats'"),
        (("-O", "x.py"), "no option -O; Python's own go before: python -O -m wirespeed run"),
    ],
)
def test_bad_command_line_says_why_and_exits_2(
    programs: Programs, arguments: tuple[str, ...], message: str
) -> None:
    done = programs.run(*OURS, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"wirespeed run: {message}\n{USAGE}"


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_options_of_python_that_would_keep_us_out_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    class Flags:
        ignore_environment, no_site = flag in ("-I", "-E"), flag == "-S"

    monkeypatch.setattr(sys, "flags", Flags)
    monkeypatch.setattr(sys, "argv", ["wirespeed", "run", "x.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python", flag, "-m", "wirespeed", "run", "x.py"])
    assert command.main(["x.py"]) == 2
    assert "keep Python from loading wirespeed" in capsys.readouterr().err


def test_options_of_python_are_the_programs_too(programs: Programs) -> None:
    shown = "import sys; print(list(sys.flags), sys.warnoptions, sys._xoptions, sys.orig_argv)"
    flags = ("-X", "dev", "-W", "ignore", "-OB")
    ours = programs.run(sys.executable, *flags, "-um", "wirespeed", "run", "-c", shown)
    plain = programs.run(sys.executable, *flags, "-u", "-c", shown)
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("python -m wirespeed run x", []),
        ("python -X dev -u -m wirespeed run x", ["-X", "dev", "-u"]),
        ("python -Bum wirespeed run x", ["-Bu"]),
        ("python -mwirespeed run x", []),
        ("python -Wignore -OOmwirespeed run x", ["-Wignore", "-OO"]),
        ("python /usr/bin/wirespeed run x", []),
        ("python -I /usr/bin/wirespeed run x", []),
        ("python -I -c code run x", []),
        ("wirespeed run x", []),
    ],
)
def test_options_of_python_are_read_off_the_command_line(line: str, flags: list[str]) -> None:
    assert command.interpreter_flags(line.split(), 2) == flags


def test_help_shows_the_options(programs: Programs) -> None:
    done = programs.run(*OURS, "--help")
    assert done.returncode == 0
    for words in ("SCRIPT | -m MODULE", "--loop asyncio", "python -X dev -m wirespeed run"):
        assert words in done.stdout
    # The program's own help is the program's.
    done = programs.run(*OURS, "-c", "import sys; print(sys.argv)", "--help")
    assert done.stdout == "['-c', '--help']\n"


def test_launcher_imports_neither_aiohttp_nor_typer(programs: Programs) -> None:
    code = (
        "import os, sys; before = set(sys.modules)\n"
        "os.execve = lambda *_: sys.exit(' '.join(sorted(set(sys.modules) - before)))\n"
        "from _wirespeed_command import main; main()"
    )
    done = programs.run(sys.executable, "-c", code, "run", "x.py")
    imported = done.stderr.split()
    assert "_wirespeed_command" in imported
    assert len(imported) < 10
    assert not {"aiohttp", "typer", "typing", "wirespeed"} & set(imported)


def test_extra_of_the_command_line_is_not_needed(programs: Programs) -> None:
    code = "import sys; sys.modules['typer'] = sys.modules['rich'] = None;"
    done = programs.run(
        sys.executable, "-c", code + "from wirespeed.cli import main; main()", "run", "-c", "print(1)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.parametrize(("ends", "code"), [(3, 3), (0xC000013A, -1073741510), (0, 0)])
def test_exit_code_of_a_waiting_launcher(monkeypatch: pytest.MonkeyPatch, ends: int, code: int) -> None:
    called: list[Any] = []

    def call(line: list[str], env: dict[str, str]) -> int:
        called.append((line, env, signal.getsignal(signal.SIGINT)))
        return ends

    monkeypatch.setattr(subprocess, "call", call)
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGINT)
    assert command._wait(["python", "x.py"], {"A": "b"}) == code
    assert called == [(["python", "x.py"], {"A": "b"}, signal.SIG_IGN)]
    assert signal.getsignal(signal.SIGINT) is before
