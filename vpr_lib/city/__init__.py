"""A seed -> a rendered city with true geometry and scenario labels.

`scene` says what stands where, `camera` where it appears, `light` how it is lit, `facades`, `sprites` and `drawing` put it
on the picture; `views` chooses the photos of a data root, `render` writes them, `pretrain` learns from a far larger city.
"""
