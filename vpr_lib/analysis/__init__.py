"""Single queries: their scenarios, suggested scenarios, examples to show, saliency maps, the position of a photo.

And whether their first photo is right: `local_features`, `verification`, `reranking`, `confidence`. Other rooms may
import all modules.
This room imports the core and `prepare`.
"""
