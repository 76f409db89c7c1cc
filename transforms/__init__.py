"""Layer 4: the stages of the path, one verb-named file each."""
