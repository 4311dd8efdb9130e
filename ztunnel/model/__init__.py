"""The values a mesh is described in: addresses, identities, workloads, services, policies, connections."""
