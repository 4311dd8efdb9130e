"""External authorization: what an authorizer is asked, and what its answer means."""
