"""The lab's Kubernetes control plane: building its binary, starting it."""
