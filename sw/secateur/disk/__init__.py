"""Files: read up to a bound, written all or nothing."""
