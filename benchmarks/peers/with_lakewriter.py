"""`lakewriter record` as a user starts it.

The first word is the value of LAKEWRITER_FAST: `off` is without the packages of the extra `fast`.
The command line follows.
"""

import os
import sys

from task import read_task

fast, *arguments = read_task().words
os.environ["LAKEWRITER_FAST"] = fast
sys.argv = ["lakewriter", *arguments]

from lakewriter.cli import main  # noqa: E402

main()
