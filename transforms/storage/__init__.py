"""Layer 3: bytes at rest (ledger, files, tables); no Beam here."""
