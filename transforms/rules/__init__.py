"""Layer 2: pure decisions; no I/O, no clock, no randomness."""
