"""The laboratory: nodes and pods as network namespaces of one machine, made from Kubernetes manifests."""
