"""Visual place recognition, small enough to read: from a folder of street photos to recall@k."""
