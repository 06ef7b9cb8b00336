"""Checking a bundle of evidence without the service: `verify_file.py` and `verify.html`, each complete in one file."""
