"""Layer 3: the model's side of the world; no Beam here. One line per provider."""
