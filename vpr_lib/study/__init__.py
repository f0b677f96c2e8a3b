"""The published study on any data root: its runs, the published numbers, and a report as an HTML page.

Rooms above import the modules directly; this room imports the core, `vpr_lib.analysis` and `vpr_lib.figures` only.
"""
