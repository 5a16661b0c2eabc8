"""The healthy in-silico patient: body parts that vary from patient to patient."""
