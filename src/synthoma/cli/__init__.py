"""The command `synthoma`: thin; where from and where to on the line, what to do in a recipe."""
