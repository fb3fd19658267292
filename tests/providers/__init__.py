"""What speaks to the outside, tried on the real programs, each in a container of its own on loopback."""
