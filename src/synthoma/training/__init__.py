"""Training as the command and Python run it: data sets, synthetic tumors and scores joined around the loop."""
