"""The command line, `python -m vpr_lib COMMAND`.

`parser.main` reads the arguments; `commands` has a function for each command, which calls the library.
No room imports this one.
"""
