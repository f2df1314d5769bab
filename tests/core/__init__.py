"""Unit tests of the compiled core, without sockets."""
