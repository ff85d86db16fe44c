"""Servers that lose nothing when they are told to stop, and migrations under a release that serves."""
