"""All checks, in the order in which a reader wants to know; run by run.py, in its environment."""

import sys

import check_crate  # noqa: F401
import check_docker  # noqa: F401
import check_compose  # noqa: F401
import check_packages  # noqa: F401
import check_systemd  # noqa: F401
import check_helm  # noqa: F401
from harness import perform

if __name__ == "__main__":
    sys.exit(perform(" ".join(sys.argv[1:]).replace("_", " ")))
