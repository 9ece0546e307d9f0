"""What tenants, worker nodes, Redis servers, people and late steps may do, and what must come of it: nothing."""
