"""Many at once, measured beside what people would use instead: `make bench`."""
