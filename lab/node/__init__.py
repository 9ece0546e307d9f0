"""The lab's worker nodes: one process is every node's kubelet, the EBS CSI driver, the cloud's node controller."""
