"""A libcuda of our own, without a GPU, which pycuda and cuda.bindings take for the real one."""
