"""AuthorizationPolicies at HTTP, compiled and decided as Envoy's RBAC filters do."""
