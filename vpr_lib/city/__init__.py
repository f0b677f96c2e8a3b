"""A seed -> a rendered city with true geometry and scenario labels.

`scene` says what stands where, `camera` where it appears and `light` how it is lit; `fronts`, `facades`, `sprites` and
`solids` are what is drawn; `walls`, `backdrop`, `things` and `drawing` put it on the picture. `spots`, `views` choose
the photos of a data root, `render` writes them, `pretrain` learns from a far larger city.
"""
