"""The published study on any data root: its runs, the published numbers, and a report as an HTML page."""
