"""What is logged, counted and traced of requests."""
