"""Where approved code runs: a cage without network, secrets or files but its own dataset version.

`cage` is the parent's side, `worker` the only file of this project that exists inside, `bubblewrap`
finds the program that builds the walls. What comes out of a cage is treated as hostile input.

For private training there are two cages (`private_training` is the parent's side): one with the
card and no image, where the text builds a model and `exporter` writes it down, and one with the
images, where `trainer` and the few files that it imports train it. No text is ever in that one.
"""
