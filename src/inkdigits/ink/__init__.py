"""Bytes of any picture to 28x28 ink."""
