"""Layer 1: frozen data that travels between stages. Imports nothing of ours."""
