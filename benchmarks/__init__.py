"""Speed as a measured property: us, the peers and the floor."""
