"""Layer 5: what is run."""
