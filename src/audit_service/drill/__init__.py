"""`audit-service drill`: every attack of the threat matrix, committed on a scratch copy, and what found it.

`scratch` makes the installation that is attacked, `dba` holds what a database administrator can do to it, `attacks` and `bundles` are the
attacks, `twins` the lawful acts that look like them, `observers` those who look, and `drilling` puts the verdicts together.
"""
