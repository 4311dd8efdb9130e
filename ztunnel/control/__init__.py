"""The control plane: Kubernetes' and Istio's objects become workload resources, served by delta xDS."""
