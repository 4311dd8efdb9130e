"""Which waypoint stands before what, what it is sent, and what runs it."""
