"""How many real annotations the synthetic tumors replaced: studies, fits, plans and their report."""
