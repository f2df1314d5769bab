"""Which of aiohttp's tests are run, and what they need.

Left out: tests of parts that wirespeed does not replace (parser, router, payloads), tests
that only read private attributes, and those that start other Pythons.
"""

# What `known.py` and the digest below were made with; another version is compared as strictly.
PINNED = "3.14.5"
DIGESTS = {"3.14.5": "sha256:5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178"}

GROUPS: dict[str, tuple[str, ...]] = {
    # The client, with its middlewares, proxies, websockets, tracing and exceptions.
    "client": (
        "test_client_functional.py",
        "test_client_ws_functional.py",
        "test_client_ws.py",
        "test_client_middleware.py",
        "test_client_middleware_digest_auth.py",
        "test_client_session.py",
        "test_client_exceptions.py",
        "test_proxy_functional.py",
        "test_proxy.py",
        "test_tracing.py",
        "test_cookiejar.py",
    ),
    # Servers that are driven through the client.
    "web": (
        "test_web_functional.py",
        "test_web_sendfile_functional.py",
        "test_web_websocket_functional.py",
        "test_web_middleware.py",
        "test_web_urldispatcher.py",
        "test_web_server.py",
        "test_web_log.py",
        "test_web_app.py",
        "test_web_exceptions.py",
        "test_classbasedview.py",
        "test_run_app.py",
        "test_test_utils.py",
        "test_pytest_plugin.py",
    ),
    # Classes that ours are derived from: what they promise on their own.
    "classes": (
        "test_connector.py",
        "test_client_response.py",
        "test_client_request.py",
        "test_client_connection.py",
        "test_client_fingerprint.py",
    ),
}

# Of the requirements of aiohttp's tests, those that these files import, in the versions that
# aiohttp's archive pins. Without blockbuster, which is optional there: it looks for blocking
# calls in aiohttp's modules, and takes half of the time.
REQUIREMENTS = (
    "aiodns; implementation_name == 'cpython'",
    "brotli; implementation_name == 'cpython'",
    "coverage",  # named in aiohttp's pytest.ini
    "freezegun",
    "isal; python_version < '3.14'",
    "proxy.py>=2.4.4rc5",
    "pytest",
    "pytest-mock",
    "pytest-timeout",
    "trustme",
    "zlib_ng",
)
CONSTRAINTS = "requirements/test.txt"

# Both loops that aiohttp's fixtures know; one at a time, so that the ids agree.
LOOPS = ("pyloop", "uvloop")
MARKERS = "not dev_mode and not autobahn and not internal"
