"""The command line, `python -m vpr_lib COMMAND`: each command calls one function of the library.

Import `main` from `parser`; `commands` holds what each command does.
"""
