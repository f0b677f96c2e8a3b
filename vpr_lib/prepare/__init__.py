"""Steps that run once before training: unpack and check a downloaded set, write packs, import phone photos.

This room imports the core only; rooms above import its modules directly.
"""
