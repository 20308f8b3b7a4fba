"""Evidence for one request: what the log proves, in words, in a folder that verifies offline."""
