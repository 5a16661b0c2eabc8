"""The in-silico patient: anatomy, natural disease, scanner and hospital; and cohorts of such patients."""
