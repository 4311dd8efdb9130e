"""HTTP as a waypoint judges it, without I/O: requests checked and edited, replies of our own."""
