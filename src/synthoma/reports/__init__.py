"""Pages, plots and pictures that every report is made of."""
