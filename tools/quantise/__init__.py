"""Makes an INT8 package of one in FP32: static quantisation by Q/DQ nodes, at package time.

The nodes say in the ONNX file itself which numbers have eight bits and how they are scaled, so that
every engine computes the same; no device calibrates anything. All is symmetric, weights for each
channel, biases in FP32: what strongly typed TensorRT networks take, and ONNX Runtime too.
"""
