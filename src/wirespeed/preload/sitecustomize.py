"""What Python runs at its start in `wirespeed run`: leaves no trace, then lets _wirespeed_hooks wait.

Every Python process below `wirespeed run` gets here, those of other environments and old
versions of Python included: for them it does nothing but step aside. That is why there is
no syntax here that Python 2 would refuse, and no function.
"""

import os
import sys

_here = os.path.dirname(__file__)
try:
    # The launcher says for which environment it speaks; see `environment_mark` in cli/run.py.
    if sys.version_info >= (3, 10) and os.environ.get("WIRESPEED_RUN", "").startswith(
        sys.implementation.cache_tag + "," + sys.prefix + ","
    ):
        # By name: for a type checker this folder is not on the path.
        __import__("_wirespeed_hooks").wait_for_imports(os.environ["WIRESPEED_RUN"].rpartition(",")[2])
except Exception:
    pass  # the program comes first: it then runs as it does without us

# sys.path, as it is without us.
while _here in sys.path:
    sys.path.remove(_here)
sys.path_importer_cache.pop(_here, None)

# The environment's own sitecustomize, if there is one, takes our place in sys.modules. If there
# is none, the ImportError tells `site` what it always tells, and it goes on; errors are shown by
# `site` in its own way.
del sys.modules[__name__]
__import__("sitecustomize")
