"""Servers that lose nothing when they are told to stop."""
