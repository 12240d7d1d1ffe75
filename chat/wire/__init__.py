"""What goes over HTTP: bodies that come in, shapes that go out, and their description."""
