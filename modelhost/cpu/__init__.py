"""What makes steps fast on a CPU: packed weights, compiled kernels, a lean forward pass."""
