"""A rendered city: a data root made from a seed, with exact geometry and scenario labels, and the starter weights.

Import from here: `write_city` (renders a data root) and `CitySettings` (its sizes and difficulty). Neither needs torch.

Reading order:

1. The city: `layout` (streets, trees, everything in it), `buildings` (the houses), `seeding` (random numbers).
2. One photo: `camera` (projection), `light` (date, weather), `canvas` (the photo being drawn), `photo` (all steps).
3. What is drawn: `background` (sky, hills, ground); `walls` (houses in perspective) with their flat pictures in
   `facades`, `facade_parts` and `windows_and_shops`; `street_objects` with `sprites` (trees, people) and `meshes`
   (cars, piers); `occluders`; `textures` (colors and patterns for all of them).
4. Which photos: `settings`, `views` (one photo to take and its file name), `camera_placement`, `planning` (all photos
   of a data root).
5. `render` writes the files; `pretrain` trains the starter weights in `weights/` and alone needs torch.
"""

from vpr_lib.city.render import write_city
from vpr_lib.city.views import CitySettings

__all__ = ["CitySettings", "write_city"]
