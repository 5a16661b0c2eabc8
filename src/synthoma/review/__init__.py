"""Reading in the browser on the user's own machine: annotation with a model's help, and blinded reader studies."""
