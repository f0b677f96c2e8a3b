"""Single queries: their scenarios, suggested scenarios, examples to show, saliency maps, the position of a photo.

`embedding` shows the descriptors of a split in two dimensions, `views` finds photos of the same view. `local_features`,
`verification`, `reranking` and `confidence` tell whether the first photo of a query is right.
Other rooms may import all modules. This room imports the core and `prepare`.
"""
