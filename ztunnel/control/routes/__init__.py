"""Routes and traffic policies of services, as a waypoint has them."""
