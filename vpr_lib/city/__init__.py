"""A rendered city: a data root made from a seed, with exact geometry and scenario labels, and the starter weights.

Import from here: `write_city` (renders a data root) and `CitySettings` (its sizes and difficulty). Neither needs torch.

Reading order: `layout` (streets, houses, trees), `canvas` (camera, date and light, the photo being drawn) and `photo`
(all steps of drawing one). What is drawn: `walls` (houses in perspective) with flat pictures from `house_fronts`, and
`street_objects` (with `meshes`); `pictures` has colors, patterns, trees and people. Which photos: `views` (settings,
one photo to take), `planning` (all photos). `render` writes the files, `city_folder` knows which of them are whole.
`exact_math` has functions that do not depend on the processor. `pretrain` trains the weights and needs torch.
"""

from vpr_lib.city.render import write_city
from vpr_lib.city.views import CitySettings

__all__ = ["CitySettings", "write_city"]
