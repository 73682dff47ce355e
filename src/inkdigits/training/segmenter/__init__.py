"""Training of the network that finds ink."""
