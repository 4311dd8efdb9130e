"""Services, endpoints, workloads and entries, and whose a name or an address is."""
