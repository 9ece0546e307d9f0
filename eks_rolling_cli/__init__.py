"""The operator's command, `eks-rolling`. It knows the steps by their JSON alone."""
