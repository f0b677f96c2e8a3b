"""Steps that run once before training: unpack and check a downloaded set, write packs, import phone photos."""
