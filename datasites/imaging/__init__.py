"""Images of a hospital: drawing, reading and preparing them. Hospital side; no syft in here."""
