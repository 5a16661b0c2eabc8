"""Natural tumors of in-silico patients, and findings that only look like tumors. Shares no code with synthesis."""
