"""Rate limits: which requests count, token buckets, and what a rate limit service is asked."""
