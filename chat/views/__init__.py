"""HTTP: who asks, what they may ask, and which shape they get. One module per surface."""
