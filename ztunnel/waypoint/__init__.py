"""A waypoint: terminates tunnels to services, sees the HTTP in them, sends it on over tunnels of its own."""
