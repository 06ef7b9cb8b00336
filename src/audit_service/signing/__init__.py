"""Signing checkpoints: the key file, what was signed last, following a log before signing it, delivering notes, and changing keys.

Used by the signer (`audit_service.signer`) and by the CLI, with the database as the role `audit_signing`. Nothing here runs in a worker.
"""
