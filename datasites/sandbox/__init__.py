"""Where approved code runs: a cage without network, secrets or files but its own dataset version.

`cage` is the parent's side, `worker` the only file of this project that exists inside, `bubblewrap`
finds the program that builds the walls. What comes out of a cage is treated as hostile input.
"""
