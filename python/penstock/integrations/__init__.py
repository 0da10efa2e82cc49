"""What meets somebody else's code: one file per framework or transport. Nothing is imported until it is used."""
