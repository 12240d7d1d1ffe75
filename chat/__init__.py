"""Everything with a user, a row or a wire format. Never imports torch."""
