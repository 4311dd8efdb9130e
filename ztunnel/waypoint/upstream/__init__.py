"""Connections with servers: found, made, secured, kept and shared."""
