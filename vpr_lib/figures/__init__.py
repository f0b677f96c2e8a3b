"""Results -> what a reader sees: plots, grids of photos, tables of text, an HTML page. Nothing is computed here.

Rooms above import the modules directly; this room imports the core and `vpr_lib.analysis` only.
"""
