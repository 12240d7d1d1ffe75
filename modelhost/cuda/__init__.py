"""What makes steps fast on a card: flash attention, CUDA graphs, fused layers."""
