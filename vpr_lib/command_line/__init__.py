"""The command line, `python -m vpr_lib COMMAND`: `parser.main` runs one of `commands`, which call the library."""
