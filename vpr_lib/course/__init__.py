"""What the notebooks need: a session on a preset, and the exercises with their checks.

Notebooks import `open_session` and `show_table` from `session`, and the `check_*` functions from `exercises`,
`data_exercises` (01) and `reranking_exercises` (06).
This room may import from all others but the command line.
"""
