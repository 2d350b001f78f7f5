"""What leaves: JSON, CSV, NIfTI, HTML."""
