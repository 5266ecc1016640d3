"""`lakewriter record` as a user starts it. Words: `websockets` refuses the packages of the extra `fast`.

The command line follows in further words.
"""

import sys

from task import read_task

task = read_task()
library, *arguments = task.words
if library == "websockets":
    # The import of a module that is None here raises ImportError, as if it were not installed.
    sys.modules |= dict.fromkeys(("picows", "uvloop", "deflate"))

from lakewriter.cli import main  # noqa: E402

sys.argv = ["lakewriter", *arguments]
main()
