"""One in-silico abdomen: the patient is drawn, the anatomy follows in mm, the scanner looks at it."""
