"""What runs are worth: probes on frozen features, and tables of results."""
