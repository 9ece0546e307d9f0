"""The lab's network: pods' namespaces, Service addresses, node ports, the load balancer."""
