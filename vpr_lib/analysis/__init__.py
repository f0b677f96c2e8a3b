"""Analysis of single queries: scenarios, suggested scenarios, examples, saliency maps, and the position of a photo.

This room imports the core and `vpr_lib.prepare` only; rooms above import its modules directly.
"""
