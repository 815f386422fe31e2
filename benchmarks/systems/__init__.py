"""A module for each system, with a `Case` for each workload that it can do."""
