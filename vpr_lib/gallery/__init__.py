"""The gallery: a notebook widget and an HTML page to browse the queries of a split with the models' predictions.

Import `open_gallery`, `Gallery` and `View` from here.
This room imports the core, `vpr_lib.prepare`, `vpr_lib.analysis` and `vpr_lib.figures` only.
"""

from vpr_lib.gallery.browser import View
from vpr_lib.gallery.notebook import Gallery, open_gallery

__all__ = ["Gallery", "View", "open_gallery"]
