"""Training of networks on examples that are made meanwhile."""
