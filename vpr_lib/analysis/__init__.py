"""Single queries: their scenarios, suggested scenarios, examples to show, saliency maps, the position of a photo.

Other rooms may import `scenarios`, `suggestions`, `examples`, `saliency` and `locating`.
This room imports the core and `prepare`.
"""
