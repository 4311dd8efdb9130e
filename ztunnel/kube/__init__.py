"""The Kubernetes API: requests and their errors in plain words, objects watched, leases, statuses."""
