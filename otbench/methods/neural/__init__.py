"""What neural solvers share: networks, fresh samples, the training loop, frames of coordinates,
max-min training, W1 potentials.

Everything here is stacked: a leading axis runs over independent problems, usually the same task
with several seeds, which are trained as one model. Small networks spend most of a step on the
overhead of its operations, which a stack pays once. A single fit is a stack of one; its numbers are
those of the same fit within a larger stack, up to rounding.

`torch.func.vmap` would do the same from unstacked code; batched matrix products written out are as
short and spare its dispatch.
"""
