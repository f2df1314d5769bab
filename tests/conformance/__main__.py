"""`python tests/conformance`: make the package importable, whatever the current directory."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from conformance.app import main  # noqa: E402 - found on the path that was just set

sys.exit(main())
