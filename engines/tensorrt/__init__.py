"""TensorRT and TensorRT-RTX: building plans from models, and running them."""
