"""The log taken out, asked again and removed."""
