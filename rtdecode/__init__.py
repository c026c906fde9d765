"""rtdecode: decode brain recordings while they run."""
