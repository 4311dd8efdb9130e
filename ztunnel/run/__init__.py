"""Puts a node proxy together from its parts, runs it, and ends it."""
