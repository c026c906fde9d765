"""Every system as a bundle: its contract, its windows, its budget, and the check that all of that holds."""
