"""Analysis of single queries: scenarios, suggested scenarios, examples, saliency maps, and the position of a photo.

Rooms above import the modules directly: `scenarios`, `suggestions`, `examples`, `saliency` and `locating`.
This room imports the core and `vpr_lib.prepare` only.
"""
