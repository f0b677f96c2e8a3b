"""What the notebooks need: `session` opens a preset, `exercises` checks the answers of students."""
