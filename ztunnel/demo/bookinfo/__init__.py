"""Bookinfo: the well-known example of four services, written anew, and a walk
through what a waypoint does with it."""
