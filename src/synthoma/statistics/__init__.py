"""How sure a number is: intervals, paired tests, corrections and agreement between readers."""
