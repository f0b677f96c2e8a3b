"""Results -> what a reader sees: plots, grids of photos, tables of text, an HTML page. Nothing is computed here."""
