"""What the notebooks need: a session on a preset, and the exercises with their checks.

Import `open_session` and `show_table` from `session`, the `check_*` functions from `exercises`.
"""
