"""Run the command line: `python -m vpr_lib COMMAND`, see `vpr_lib.command_line`."""

import sys

from vpr_lib.command_line.parser import main

if __name__ == "__main__":
    sys.exit(main())
